import pytest

CAPTURE = f"/attnscope/captures/{'c' * 32}"


@pytest.mark.parametrize(
    "path", ["/attnscope/health", f"{CAPTURE}/map", f"{CAPTURE}/map?layer=x", "/nowhere"]
)
def test_every_answer_carries_the_security_headers(client, engine, path):
    headers = client.get(path).headers

    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["frame-ancestors"] == "'self'"
    assert policy["object-src"] == "'none'"
    assert policy["default-src"] == "'self'"
    assert not any("http" in value or "*" in value for value in policy.values())
