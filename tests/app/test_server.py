import json
from functools import partial
from pathlib import Path

import plotly
import pytest
import streamlit as st
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from attnscope.app import server
from attnscope.app.jobs import access
from attnscope.app.jobs.local import LocalEngine
from attnscope.app.routes import jobs, maps, static
from attnscope.app.routes.security import SecurityHeaders
from attnscope.kernels.errors import (
    CaptureMissing,
    EngineUnavailable,
    InvalidCall,
    JobCancelled,
    ModelTooLarge,
    UnsupportedCall,
)
from tests.app.fake_engine import FakeEngine
from tests.app.jobs.conftest import FAKES

CAPTURE = f"/attnscope/captures/{'c' * 32}"
APP = Starlette(
    routes=[*jobs.ROUTES, *maps.ROUTES, *static.ROUTES], middleware=[Middleware(SecurityHeaders)]
)


@pytest.fixture
def engine():
    engine = FakeEngine()
    with access.provided(engine):
        yield engine


@pytest.fixture
def client():
    return TestClient(APP)


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


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (CaptureMissing("It is gone.", "Run it again."), 410),
        (InvalidCall("There is no head 9."), 400),
        (UnsupportedCall("Not on a CPU."), 400),
        (EngineUnavailable("Being replaced."), 503),
        (JobCancelled("Cancelled."), 499),
        (ModelTooLarge("Does not fit."), 500),
    ],
)
def test_errors_are_json_with_a_status_and_a_remedy(client, error, status):
    with access.provided(FakeEngine(error)):
        response = client.get(f"{CAPTURE}/map")

    assert response.status_code == status
    assert response.json() == {"error": error.message, "remedy": error.remedy}
    assert response.headers["cache-control"] == "no-store"
    assert ("retry-after" in response.headers) is (status == 503)


def test_without_an_engine_it_says_how_to_start(client):
    response = client.get("/attnscope/health")
    assert response.status_code == 503
    assert "scripts/run" in response.json()["remedy"]


def test_a_map_is_not_sent_twice(client, engine):
    first = client.get(f"{CAPTURE}/map?layer=1")
    again = client.get(f"{CAPTURE}/map?layer=1", headers={"If-None-Match": first.headers["etag"]})
    other = client.get(f"{CAPTURE}/map?layer=2", headers={"If-None-Match": first.headers["etag"]})

    assert (again.status_code, again.content) == (304, b"")
    assert other.status_code == 200
    assert "private" in first.headers["cache-control"]


def test_a_jobs_state_is_served_and_it_can_be_cancelled(client, engine):
    job = "a" * 32
    response = client.get(f"/attnscope/jobs/{job}?after=4")
    assert response.json()["step"] == "Layer 3"
    assert response.json()["events"] == [{"number": 5, "at": 1.0, "text": "Queued."}]
    assert response.headers["cache-control"] == "no-store"

    assert client.post(f"/attnscope/jobs/{job}/cancel").status_code == 200
    assert engine.cancelled == [job]
    assert client.get("/attnscope/jobs/unknown").status_code == 404
    assert client.get(f"/attnscope/jobs/{job}/cancel").status_code == 405


def test_another_sites_page_cannot_cancel(client, engine):
    response = client.post(
        f"/attnscope/jobs/{'a' * 32}/cancel", headers={"Sec-Fetch-Site": "cross-site"}
    )
    assert response.status_code == 403
    assert not engine.cancelled


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


def test_plotly_comes_from_the_installed_package_compressed_once(client):
    path = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    response = client.get("/attnscope/static/plotly.min.js", headers={"Accept-Encoding": "gzip"})

    assert response.content == path.read_bytes()
    assert int(response.headers["content-length"]) < len(response.content) / 2
    assert response.headers["content-type"].startswith("text/javascript")
    assert response.headers["cache-control"] == "no-cache"
    tag = {"If-None-Match": response.headers["etag"]}
    assert client.get("/attnscope/static/plotly.min.js", headers=tag).status_code == 304
    kept = client.get("/attnscope/static/plotly.min.js?v=7", headers=tag)
    assert "immutable" in kept.headers["cache-control"]


def test_our_modules_follow_their_file(client, tmp_path, monkeypatch):
    monkeypatch.setattr(static, "OURS", tmp_path)
    (tmp_path / "map_viewer.js").write_text("export const a = 1")
    (tmp_path / "secret.py").write_text("x = 1")
    first = client.get("/attnscope/static/map_viewer.js", headers={"Accept-Encoding": "identity"})
    (tmp_path / "map_viewer.js").write_text("export const a = 22")
    second = client.get("/attnscope/static/map_viewer.js")

    assert first.text == "export const a = 1"
    assert second.text == "export const a = 22"
    assert first.headers["etag"] != second.headers["etag"]
    assert client.get("/attnscope/static/secret.py").status_code == 404


@pytest.mark.parametrize(
    "name",
    [
        "../../settings.py",
        "..%2f..%2fsettings.py",
        "%2e%2e/server.py",
        "....//x.js",
        "..\\x.js",
        "/etc/passwd",
        "x.js%00.css",
        ".hidden.js",
        "",
    ],
)
def test_no_path_leads_out_of_the_static_folder(client, name):
    response = client.get(f"/attnscope/static/{name}")
    assert response.status_code == 404
    assert "import" not in response.text


def test_the_whole_application_serves_streamlit_and_our_routes(tmp_path, monkeypatch):
    page = tmp_path / "main.py"
    page.write_text("import streamlit as st\nst.write('hello')\n")
    monkeypatch.setenv("ATTNSCOPE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("ATTNSCOPE_PROMPT_AT_START", "no")
    monkeypatch.setattr(server, "LocalEngine", partial(LocalEngine, tables=FAKES))
    app = st.App(page, **server.PARTS)

    with TestClient(app) as client:
        page_response = client.get("/")
        assert page_response.status_code == 200
        assert "content-security-policy" in page_response.headers
        assert client.get("/attnscope/health").json()["status"] in {"starting", "ok"}
        assert client.get("/_stcore/metrics").status_code == 404
        assert client.get("/_stcore/health").status_code == 200
        cookie = page_response.headers["set-cookie"]
        assert cookie.startswith("attnscope_visitor=")
        assert "HttpOnly; SameSite=Lax" in cookie
        assert "set-cookie" not in client.get("/").headers
        packed = client.get("/attnscope/static/plotly.min.js", headers={"Accept-Encoding": "gzip"})
        assert packed.headers["content-encoding"] == "gzip"
    with pytest.raises(EngineUnavailable):
        access.engine()
