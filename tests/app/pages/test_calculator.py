import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from attnscope.app.jobs.access import provided
from attnscope.app.jobs.answers import ASKS
from attnscope.app.jobs.context import Context, Resources
from attnscope.app.jobs.work import WORK
from attnscope.app.settings import Settings
from attnscope.app.views.calculator import CalculatorView
from attnscope.kernels.registry import BACKENDS
from attnscope.models.loading import load
from attnscope.models.shape import shape_of
from attnscope.profiling.asked import model_used
from attnscope.profiling.attention_memory import COMPARED
from attnscope.profiling.calculator import estimate, longest
from attnscope.profiling.record import Cell
from attnscope.profiling.solver import first_that_fits, largest_batch
from attnscope.profiling.store import Store
from attnscope.profiling.units import count, nbytes
from tests.app.pages.engines import FakeEngine
from tests.app.pages.opened import open_page, url
from tests.app.statuses import RUNNING
from tests.profiling.records import RECORD

SCRIPT = "from attnscope.app.main import calculator_page\n\ncalculator_page()\n"
GIB = 2**30
Open = Callable[..., AppTest]
TINY = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
}


class AnsweringEngine(FakeEngine):
    """Answers the Calculator's questions itself, as the worker would; its checks end as the test says."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(hold=True)
        self._context = Context(settings=settings, device="cpu", resources=Resources())

    def submit(self, kind: str, arguments: dict[str, Any], *, owner: str) -> str:
        held = super().submit(kind, arguments, owner=owner)
        named = f"{len(self.submitted):032x}"
        self.statuses[named] = replace(self.statuses.pop(held), id=named)
        return named

    def under_way(self, kind: str, arguments: dict[str, Any], *, owner: str) -> str | None:
        return None

    def work(self, job: str) -> None:
        """End a job with what the worker would find."""
        arguments = json.loads(json.dumps(self.submitted[int(job, 16) - 1]))
        status = self.statuses[job]
        self.results[job] = json.loads(json.dumps(WORK[status.kind](arguments, self._context)))
        self.statuses[job] = replace(status, state="done", progress=1.0)

    def ask(
        self,
        method: str,
        arguments: dict[str, Any],
        *,
        timeout_s: float | None = None,
        abandoned: threading.Event | None = None,
    ) -> dict[str, Any]:
        asked = json.loads(json.dumps(arguments))
        return json.loads(json.dumps(ASKS[method].answer(asked, self._context)))


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[AnsweringEngine]:
    monkeypatch.setattr("attnscope.app.state.owner_of", lambda cookies: None)
    engine = AnsweringEngine(Settings(data=tmp_path, model_folders=(str(tmp_path),)))
    with provided(engine):
        yield engine


@pytest.fixture
def visit(engine: AnsweringEngine) -> Open:
    return partial(open_page, SCRIPT)


def told(app: AppTest) -> str:
    """What the page says, the panel's words included."""
    assert not app.exception
    text = " ".join(str(element.proto.body) for element in app.get("html"))
    text += json.dumps(panel(app), ensure_ascii=False)
    assert "Traceback" not in text
    return text


def panel(app: AppTest) -> dict[str, Any]:
    named = "attnscope_calculation"
    (found,) = (each for each in app.get("bidi_component") if each.proto.component_name == named)
    return json.loads(found.proto.json)["told"]


def following(app: AppTest) -> list[str]:
    """The jobs whose progress the page draws."""
    names = (each.key for each in app.get("bidi_component"))
    return [name for name in names if name and name.startswith("progress_")]


def test_the_first_screen_answers_before_anything_is_set(visit: Open) -> None:
    app = visit()
    said, shape = told(app), shape_of("demo")
    view = CalculatorView()
    found = estimate(shape, backend=view.backend, length=view.length)
    most = longest(shape, memory_bytes=79 * GIB, backend=view.backend)
    assert "Fits" in said
    assert nbytes(found.total_bytes) in said
    assert count(most) in said
    assert sum(part["share"] for part in panel(app)["parts"]) == pytest.approx(1.0)
    assert all(term.formula in said for term in found.terms)
    assert len(app.get("plotly_chart")) == 2
    assert url(app) == {}


def test_what_is_changed_is_answered_and_stands_in_the_link(visit: Open) -> None:
    app = visit(length="300000")
    app.selectbox(key="calculator_backend").set_value("eager").run()
    said = told(app)
    assert "Does not fit" in said
    assert "Inference holds one layer" in said
    assert url(app) == {"length": "300000", "backend": "eager"}
    again = told(visit(**url(app)))
    found = estimate(shape_of("demo"), backend="eager", length=300_000)
    assert nbytes(found.total_bytes) in said
    assert nbytes(found.total_bytes) in again


def test_a_pasted_configuration_travels_in_the_link(visit: Open) -> None:
    app = visit()
    app.text_area(key="calculator_pasted").set_value(json.dumps(TINY)).run()
    found = estimate(shape_of(TINY), backend="triton", length=2048)
    assert nbytes(found.total_bytes) in told(app)
    assert list(url(app)) == ["config"]
    assert nbytes(found.total_bytes) in told(visit(**url(app)))
    app.selectbox(key="calculator_model").set_value("gpt2").run()
    assert url(app) == {"model": "gpt2"}


def test_ones_own_device_has_its_own_figures(visit: Open) -> None:
    said = told(visit(device="my own", memory="0.03", reserve="0", length="9000"))
    assert "Does not fit" in said
    assert "as you describe it" in said


@pytest.mark.parametrize(
    ("query", "words"),
    [
        pytest.param({"batch": "0"}, "a whole number from 1", id="no batch"),
        pytest.param({"length": "10000001"}, "a whole number from 1", id="too long"),
        pytest.param({"length": "<b>"}, "&lt;b&gt;", id="markup"),
        pytest.param({"config": "!!"}, "a pasted configuration", id="broken link"),
        pytest.param({"device": "H999"}, "No device is called", id="device"),
        pytest.param({"backend": "warp"}, "warp", id="backend"),
        pytest.param({"model": "/etc"}, "loads local models only from", id="folder"),
        pytest.param({"memory": "nan"}, "a number from", id="not a number"),
        pytest.param({"model": "bert-base", "phase": "decode"}, "keeps no cache", id="decode"),
        pytest.param({"phase": "training", "backend": "tiled"}, "backward", id="training"),
        pytest.param({"model": "gemma-2-9b", "backend": "sdpa_flash"}, "softcap", id="refused"),
    ],
)
def test_bad_input_is_told_in_a_sentence_and_the_page_still_answers(
    visit: Open, query: dict[str, str], words: str
) -> None:
    said = told(visit(**query))
    assert words in said
    assert "Fits" in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("not JSON", "does not start with a brace", id="prose"),
        pytest.param('{"model_type": "llama"', "not readable JSON", id="cut"),
        pytest.param('{"model_type": "warp"}', "does not know", id="unknown type"),
        pytest.param("{}", "no model_type", id="no type"),
        pytest.param('{"a": "' + "x" * 10_000_000 + '"}', "too long", id="10 MB"),
    ],
)
def test_a_bad_configuration_is_told_and_the_model_stays(
    visit: Open, text: str, words: str
) -> None:
    app = visit(model="gpt2")
    app.text_area(key="calculator_pasted").set_value(text).run()
    assert words in told(app)
    assert url(app) == {"model": "gpt2"}
    app.selectbox(key="calculator_dtype").set_value("float32").run()
    assert words not in told(app)


def test_every_backend_has_its_limits_or_a_reason(visit: Open) -> None:
    app = visit(length="3000", price="2")
    said, shape = told(app), shape_of("demo")
    assert len(app.get("plotly_chart")) == 3, "memory, time and cost"
    for name in ("eager", "flex", "tiled", "transformers_sdpa"):
        asked: dict[str, Any] = {"memory_bytes": 79 * GIB, "backend": name}
        assert count(longest(shape, **asked)) in said
        assert f"<td>{count(largest_batch(shape, length=3000, **asked))}</td>" in said
    assert "never repeat k and v" in said, "why SDPA's memory-efficient kernel refuses"


@pytest.mark.parametrize(
    ("query", "words"),
    [
        pytest.param({"backend": "eager"}, "goes farthest, up to", id="fits"),
        pytest.param({"length": "10000000"}, "No backend fits 10", id="none"),
        pytest.param({"model": "deepseek-v3"}, "No backend fits even one token", id="no token"),
    ],
)
def test_the_sentence_says_how_far_it_goes_and_who_goes_farther(
    visit: Open, query: dict[str, str], words: str
) -> None:
    assert words in panel(visit(**query))["reach"]


def test_every_exact_backend_is_offered_and_compared(visit: Open) -> None:
    exact = {backend.name for backend in BACKENDS if backend.exact}
    assert {"fa2", "fa3", "fa4"} < exact
    offered = visit().selectbox(key="calculator_backend").options
    assert len(offered) == len(COMPARED)
    assert exact == set(COMPARED) - {"transformers_eager", "transformers_sdpa"}


@pytest.mark.parametrize("package", ["fa2", "fa3", "fa4"])
def test_a_package_that_is_not_installed_here_is_calculated(visit: Open, package: str) -> None:
    found = estimate(shape_of("demo"), backend=package, length=4096).total_bytes
    assert nbytes(found) in told(visit(backend=package, length="4096", dtype="bfloat16"))


def test_where_the_chosen_backend_ends_the_first_that_fits_is_named(visit: Open) -> None:
    able = tuple(name for name in COMPARED if name != "sdpa_efficient")
    asked: dict[str, Any] = {"memory_bytes": 79 * GIB, "length": 100_000}
    assert first_that_fits(shape_of("demo"), backends=able, **asked) == "sdpa_flash"
    said = panel(visit(backend="eager", length="100000"))["reach"]
    assert "The first that fits 100\u202f000 is SDPA flash" in said


def test_a_check_is_followed_found_again_and_stands_in_the_link(
    visit: Open, engine: AnsweringEngine
) -> None:
    app = visit(backend="eager", length="64", dtype="float32")
    app.button(key="calculator_check").click().run()
    job = url(app)["check"]
    assert following(app) == [f"progress_{job}"]
    assert following(visit(**url(app))) == [f"progress_{job}"], "a reload"
    engine.work(job)
    said = told(visit(**url(app)))
    found = engine.results[job]
    for column in ("traced", "measured"):
        assert found[column]["total"] == pytest.approx(found["closed"]["total"], rel=1e-3)
        assert nbytes(found[column]["total"]) in said
    assert "<td>0\u202f%</td>" in said, "of the weights"
    assert "self_attn" in said
    app.selectbox(key="calculator_backend").set_value("tiled").run()
    assert "check" not in url(app), "another calculation was not checked"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"state": "cancelled"}, "The check was cancelled.", id="cancelled"),
        pytest.param(
            {"state": "failed", "reason": "No room.", "remedy": "Wait."}, "Wait.", id="failed"
        ),
        pytest.param(None, "not on this server any more", id="gone"),
    ],
)
def test_a_check_that_did_not_end_well_is_a_sentence(
    visit: Open, engine: AnsweringEngine, change: dict[str, Any] | None, words: str
) -> None:
    job = "a" * 32
    if change is not None:
        engine.statuses[job] = replace(RUNNING, id=job, **change)
    app = visit(check=job)
    assert words in told(app)
    assert app.button(key="calculator_check").label == "Check it"


def test_runs_of_the_model_stand_beside_their_predictions(visit: Open, tmp_path: Path) -> None:
    place = Settings(data=tmp_path).history_place
    cell = Cell(backend="eager", phase="prefill", batch=1, length=64, dtype="float32")
    assert RECORD.peak is not None
    run = replace(RECORD, model=model_used(load("demo")), cell=cell)
    other = replace(run, model=replace(run.model, config_hash="another"))
    with Store.open(place) as store:
        store.add_all([run, other])
    said = told(visit(backend="eager", length="128", dtype="float32"))
    predicted = estimate(shape_of("demo"), backend="eager", length=64, dtype="float32")
    assert f"<td>{nbytes(predicted.total_bytes)}</td>" in said
    assert f'href="/runs?run={run.id}"' in said
    assert other.id not in said
    assert "Measure this on the page Profile" in told(visit(backend="tiled"))


def test_a_history_that_cannot_be_read_says_so_and_the_rest_stands(
    visit: Open, tmp_path: Path
) -> None:
    Path(Settings(data=tmp_path).history_place).mkdir(parents=True)
    said = told(visit())
    assert "Fits" in said
    assert "history" in said
