from functools import partial

import pytest
import streamlit as st
from starlette.testclient import TestClient

from attnscope.app import server
from attnscope.app.jobs import access
from attnscope.app.jobs.local import LocalEngine
from attnscope.kernels.errors import EngineUnavailable
from tests.app.jobs.conftest import FAKES


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
