import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from attnscope.app.jobs import access
from attnscope.app.jobs.work import WORK
from attnscope.app.routes.generations import ROUTES
from tests.app.generated import GENERATION, asked, context_in
from tests.app.profiled import AnsweringEngine

BASE = f"/attnscope/generations/{GENERATION}"


@pytest.fixture
def client(tmp_path):
    context = context_in(tmp_path)
    WORK["generate"](asked(tokens=2), context)
    with access.provided(AnsweringEngine(context)):
        yield TestClient(Starlette(routes=ROUTES))


def test_steps_and_rows_are_read_from_the_browser(client):
    told = client.get(BASE).json()
    assert [step["number"] for step in told["steps"]] == [0, 1]
    again = client.get(f"{BASE}?after={told['next']}")
    assert (again.json()["steps"], again.headers["cache-control"]) == ([], "no-store")
    assert again.json()["ended"]["capture"]
    for head in ("", "&head=5"):
        row = client.get(f"{BASE}/row?query=9&layer=2&attention=self&worker=auto{head}")
        assert np.frombuffer(row.content, "<f4").sum() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/row?query=9&layer=2&attention=self&worker=auto&head=8", 400),
        ("/row?query=99&layer=2&attention=self&worker=auto", 400),
        ("/row?query=9&layer=2&attention=self&worker=../x", 400),
        ("?before=1", 400),
    ],
)
def test_what_cannot_be_is_refused(client, path, status):
    assert client.get(f"{BASE}{path}").status_code == status


def test_nothing_is_told_of_one_that_is_not_begun(client):
    assert client.get(f"/attnscope/generations/{'f' * 32}").json()["steps"] == []
    assert client.get("/attnscope/generations/nonsense").status_code == 404
