import json

import pytest

CAPTURE = f"/attnscope/captures/{'c' * 32}"


def test_the_map_asks_with_what_the_query_says(client, engine):
    response = client.get(
        f"{CAPTURE}/map?layer=3&head=2&sequence=1&q0=10&q1=20&k0=0&k1=5&rows=64&cols=9999"
        "&reduce=max&reading=score&encoding=f32&effort=exact"
    )

    assert response.status_code == 200
    assert engine.asked == [
        (
            "exact_map",
            {
                "capture": "c" * 32,
                "layer": 3,
                "head": 2,
                "sequence": 1,
                "reading": "score",
                "q0": 10,
                "q1": 20,
                "k0": 0,
                "k1": 5,
                "rows": 64,
                "cols": 512,
                "reduce": "max",
                "encoding": "f32",
                "effort": "exact",
            },
        )
    ]
    assert json.loads(response.headers["x-attnscope"])["encoding"] == "f32"
    assert response.content == bytes(range(16)) * 100


def test_the_map_has_defaults_and_is_compressed_when_eight_bits(client, engine):
    response = client.get(f"{CAPTURE}/map", headers={"Accept-Encoding": "gzip"})

    method, arguments = engine.asked[0]
    assert method == "map"
    assert (arguments["rows"], arguments["encoding"], arguments["reduce"]) == (512, "u8", "mean")
    assert "q0" not in arguments
    assert response.headers["content-encoding"] == "gzip"
    assert int(response.headers["content-length"]) < 200
    assert response.content == bytes(range(16)) * 100


@pytest.mark.parametrize(
    ("path", "method", "expected"),
    [
        ("/row?layer=1&head=0&query=7", "row", {"query": 7, "layer": 1}),
        ("/column?key=0", "column", {"key": 0, "reading": "weight"}),
        ("/overview?size=1000&reduce=mean", "overview", {"size": 128, "reduce": "mean"}),
        ("/diagnostics?sequence=2", "diagnostics", {"sequence": 2}),
        ("", "summary", {"capture": "c" * 32}),
    ],
)
def test_the_other_questions(client, engine, path, method, expected):
    response = client.get(CAPTURE + path)

    assert response.status_code == 200
    asked, arguments = engine.asked[0]
    assert asked == method
    assert expected.items() <= arguments.items()


def test_a_map_is_not_sent_twice(client, engine):
    first = client.get(f"{CAPTURE}/map?layer=1")
    again = client.get(f"{CAPTURE}/map?layer=1", headers={"If-None-Match": first.headers["etag"]})
    other = client.get(f"{CAPTURE}/map?layer=2", headers={"If-None-Match": first.headers["etag"]})

    assert (again.status_code, again.content) == (304, b"")
    assert other.status_code == 200
    assert "private" in first.headers["cache-control"]
