import json
from io import BytesIO
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from attnscope.app.figures import theme
from attnscope.app.figures.length_curves import Curve, Quantity, length_curves
from attnscope.app.figures.memory import Part, memory_bar
from attnscope.app.files.images import ImageServer
from attnscope.app.jobs import access, answers
from attnscope.app.jobs.context import Context, Resources
from attnscope.app.routes.calculations import Calculations
from attnscope.app.settings import Settings
from attnscope.models.shape import shape_of
from attnscope.profiling.calculator import estimate
from attnscope.profiling.hardware import device
from attnscope.profiling.plan import Plan
from attnscope.profiling.roofline import work
from attnscope.profiling.units import nbytes
from tests.app.fake_engine import FakeEngine

EXPORT = "/attnscope/calculation/export"
GIB = 2**30


class AnsweringEngine(FakeEngine):
    def __init__(self, context):
        super().__init__()
        self.context = context

    def ask(self, method, arguments, *, timeout_s=None, abandoned=None):
        return answers.ASKS[method].answer(arguments, self.context)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    settings = Settings(data=tmp_path_factory.mktemp("data"))
    context = Context(settings=settings, device="cpu", resources=Resources())
    with access.provided(AnsweringEngine(context)):
        yield TestClient(Starlette(routes=Calculations(ImageServer()).routes))


def test_the_bars_numbers_are_the_table_of_terms(client: TestClient) -> None:
    found = estimate(shape_of("demo"), backend="eager", length=4096)
    answer = client.get(EXPORT, params={"format": "json", "backend": "eager", "length": 4096})
    columns = json.loads(answer.content)["columns"]
    assert columns["name"] == [term.name for term in found.terms]
    assert columns["nbytes"] == [term.nbytes for term in found.terms]
    assert columns["numbers"] == [term.numbers for term in found.terms]
    assert 'filename="demo_memory-bar_' in answer.headers["content-disposition"]


def test_the_curves_numbers_are_those_of_every_length(client: TestClient) -> None:
    answer = client.get(EXPORT, params={"what": "memory", "format": "parquet"})
    frame = pd.read_parquet(BytesIO(answer.content))
    shape = shape_of("demo")
    for length in (128, 65_536):
        row = frame[frame.tokens == length].iloc[0]
        assert row["eager"] == estimate(shape, backend="eager", length=length).total_bytes
    assert "sdpa_efficient" not in frame, "the demo's grouped queries are refused by it"


@pytest.mark.parametrize("what", ["bar", "memory", "time"])
def test_a_page_of_it_opens_offline(client: TestClient, what: str) -> None:
    page = client.get(EXPORT, params={"what": what, "format": "html", "theme": "dark"}).text
    assert "default-src 'none'" in page
    assert theme.DARK.ground in page
    assert 'src="http' not in page


@pytest.mark.parametrize(
    "query",
    [{"what": "pie"}, {"format": "exe"}, {"batch": "0"}, {"device": "H999"}, {"theme": "x"}],
)
def test_what_cannot_be_is_refused_by_name(client: TestClient, query: dict[str, str]) -> None:
    answer = client.get(EXPORT, params=query)
    assert answer.status_code == 400
    assert unquote(next(iter(query.values())))[:3] in answer.json()["error"]


def test_the_bar_is_as_long_as_its_terms() -> None:
    parts = [Part(name="weights", nbytes=3 * GIB), Part(name="key/value cache", nbytes=GIB // 2)]
    figure = memory_bar(parts, memory_bytes=8 * GIB, title="t", note="n", look=theme.LIGHT)
    bars = json.loads(str(figure.to_json()))["data"]
    assert [bar["x"][0] for bar in bars] == [3.0, 0.5]
    assert len({bar["marker"]["color"] for bar in bars}) == 2
    assert any("8.00\u202fGiB" in note.text for note in figure.layout.annotations)
    far = memory_bar(parts, memory_bytes=800 * GIB, title="t", note="n", look=theme.LIGHT)
    assert [note.text for note in far.layout.annotations] == ["n"]


def test_a_curve_has_its_backends_colour_and_the_wall_stands_at_the_memory() -> None:
    curves = [
        Curve(backend="eager", title="<b>Eager", values=(GIB, 4 * GIB), dash="solid"),
        Curve(backend="triton", title="Triton", values=(GIB, 2 * GIB), dash="dash"),
    ]
    quantity = Quantity(title="", words=nbytes, base=2, wall=3 * GIB, wall_words="the device")
    figure = length_curves(
        curves,
        [128, 256],
        quantity,
        chosen=("triton", 256, 2 * GIB),
        title="t",
        note="n",
        look=theme.DARK,
    )
    drawn = json.loads(str(figure.to_json()))["data"]
    assert [line["line"]["color"] for line in drawn[:2]] == [
        theme.backend_colour("eager"),
        theme.backend_colour("triton"),
    ]
    assert drawn[0]["name"] == "&lt;b&gt;Eager"
    assert figure.layout.shapes[0].y0 == 3 * GIB
    label = next(note for note in figure.layout.annotations if "device" in note.text)
    assert np.isclose(label.y, np.log10(3 * GIB))


def test_time_and_cost_are_those_of_the_roofline(client: TestClient) -> None:
    asked = {"what": "cost", "format": "json", "price": "3", "length": 4096}
    costs = json.loads(client.get(EXPORT, params=asked).content)["columns"]
    times = json.loads(client.get(EXPORT, params={**asked, "what": "time"}).content)["columns"]
    h100 = device("H100 SXM")
    rates = {
        "flops_per_second": h100.peak_flops["bfloat16"],
        "bytes_per_second": h100.bandwidth,
    }
    for name in ("eager", "flex", "triton"):
        plan = Plan(
            shape=shape_of("demo"), backend=name, batch=1, dtype="bfloat16", phase="prefill"
        )
        for place, length in enumerate(times["tokens"]):
            seconds = work(plan, length).seconds(**rates)
            assert times[name][place] == seconds
            assert np.isclose(costs[name][place], seconds / length * 1e6 / 3600 * 3)


def test_a_step_of_the_slider_is_answered_in_words(client: TestClient) -> None:
    asked = {"backend": "eager", "length": 4096, "batch": 2}
    told = client.get("/attnscope/calculation", params=asked).json()
    found = estimate(shape_of("demo"), backend="eager", length=4096, batch=2)
    assert told["fits"]
    assert nbytes(found.total_bytes) in told["words"]
    assert [part["name"] for part in told["parts"]] == [term.name for term in found.terms]
    shares = [part["share"] * found.total_bytes for part in told["parts"]]
    assert np.allclose(shares, [term.nbytes for term in found.terms])
    assert "fits up to" in told["reach"]
    near = client.get("/attnscope/calculation", params={**asked, "length": 30_000}).json()
    room = 79 * GIB
    total = estimate(shape_of("demo"), backend="eager", length=30_000, batch=2).total_bytes
    assert not near["fits"]
    assert near["wall"]["share"] == room / total


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ({"length": "0"}, 400, "a whole number from 1"),
        ({"device": "H999"}, 400, "No device is called"),
        ({"model": "bert-base", "phase": "decode"}, 400, "keeps no cache"),
        ({"model": "no/such/model/here"}, 500, "model"),
        ({"what": "cost"}, 400, "no cost"),
    ],
)
def test_what_has_no_answer_is_a_sentence(
    client: TestClient, query: dict[str, str], status: int, words: str
) -> None:
    path = EXPORT if "what" in query else "/attnscope/calculation"
    answer = client.get(path, params=query)
    assert answer.status_code == status
    assert words in answer.json()["error"]
