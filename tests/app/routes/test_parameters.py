import pytest

CAPTURE = f"/attnscope/captures/{'c' * 32}"


@pytest.mark.parametrize(
    "query",
    [
        "layer=-1",
        "layer=NaN",
        "layer=1.5",
        "layer=99999999999999999999",
        "layer=",
        "layer=٣",
        "head=1e3",
        "rows=0",
        "q0=inf",
        "q1=0x10",
        "reading=weights",
        "reduce=<script>",
        "encoding=png",
        "effort=huge",
        "lier=3",
    ],
)
def test_wrong_parameters_are_refused_by_name(client, engine, query):
    response = client.get(f"{CAPTURE}/map?{query}")

    assert response.status_code == 400
    assert query.split("=")[0] in response.json()["error"]
    assert not engine.asked


def test_a_missing_parameter_is_named(client, engine):
    assert client.get(f"{CAPTURE}/row").json()["error"] == "The parameter query is missing."


@pytest.mark.parametrize("name", ["x", "..", "%2e%2e", "C" * 32, "c" * 33, "c" * 31 + "%0a"])
def test_an_id_that_cannot_be_one_is_not_asked_for(client, engine, name):
    response = client.get(f"/attnscope/captures/{name}/map")
    assert response.status_code in {404, 410}
    assert not engine.asked
