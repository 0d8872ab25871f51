import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from attnscope.app.files.images import ImageServer
from attnscope.app.jobs import access, answers
from attnscope.app.jobs.context import Context, Resources
from attnscope.app.routes.exports import Exports
from attnscope.app.settings import Settings
from tests.app.fake_engine import FakeEngine
from tests.app.jobs.captures import made

CAPTURE = "c" * 32


class AnsweringEngine(FakeEngine):
    """Answers in this process, from one capture."""

    def __init__(self, context):
        super().__init__()
        self.context = context

    def ask(self, method, arguments, *, timeout_s=None, abandoned=None):
        self.asked.append((method, arguments))
        return answers.ASKS[method].answer(arguments, self.context)


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    settings = Settings(data=tmp_path_factory.mktemp("data"))
    context = Context(settings=settings, device="cpu", resources=Resources())
    answers.shelf(context).add(CAPTURE, made(24))
    return context


@pytest.fixture
def client(context):
    with access.provided(AnsweringEngine(context)):
        yield TestClient(Starlette(routes=Exports(ImageServer()).routes))


def get(client, **query):
    return client.get(f"/attnscope/captures/{CAPTURE}/export", params=query)


@pytest.mark.parametrize("what", ["map", "overview", "diagnostics", "tokens"])
@pytest.mark.parametrize("form", ["csv", "json", "parquet", "html"])
def test_every_chart_comes_as_an_attachment(client, what, form):
    response = get(client, what=what, format=form, layer=2, head=3)

    assert response.status_code == 200, response.text
    disposition = response.headers["content-disposition"]
    assert disposition.startswith('attachment; filename="Tiny_')
    assert disposition.endswith(f'.{form}"')
    assert len(response.content) > 100
    assert "sandbox" in response.headers["content-security-policy"]


def test_the_numbers_are_the_maps(client, context):
    body = get(client, what="map", format="json", layer=2, head=1, q0=4, q1=9, k0=0, k1=9).json()
    direct = answers.ASKS["map"].answer(
        {
            "capture": CAPTURE,
            "layer": 2,
            "head": 1,
            "q0": 4,
            "q1": 9,
            "k0": 0,
            "k1": 9,
            "encoding": "f32",
        },
        context,
    )
    values = np.frombuffer(direct["body"], "<f4")
    columns = next(part for part in body.values() if "weight" in part)
    written = np.array([np.nan if w is None else w for w in columns["weight"]], np.float32)
    np.testing.assert_allclose(written, values, rtol=1e-6)


def test_the_pages_whole_view_is_accepted(client):
    response = get(
        client,
        what="tokens",
        format="csv",
        layer=2,
        head=3,
        sequence=1,
        reading="weight",
        scale="row",
        reduce="max",
        pinned=5,
        direction="receives",
        merged=1,
        theme="dark",
    )
    assert response.status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        {"what": "secrets"},
        {"format": "exe"},
        {"what": "map", "head": 99},
        {"what": "tokens", "layer": 2, "pinned": 999},
        {"what": "tokens", "sequence": 9},
        {"what": "overview", "theme": "../../x"},
        {"what": "map", "q0": "nan"},
    ],
)
def test_wrong_exports_are_refused(client, query):
    response = get(client, **query)
    assert response.status_code == 400
    assert response.json()["error"]
