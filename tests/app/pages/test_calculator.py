import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from attnscope.app.calculator_view import CalculatorView
from attnscope.app.jobs.access import provided
from attnscope.app.jobs.answers import ASKS
from attnscope.app.jobs.context import Context, Resources
from attnscope.app.settings import Settings
from attnscope.models.shape import shape_of
from attnscope.profiling.calculator import estimate, longest
from attnscope.profiling.units import count, nbytes
from tests.app.pages.engines import FakeEngine

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
    """Answers the Calculator's questions itself, as the worker would."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._context = Context(settings=settings, device="cpu", resources=Resources())

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
def visit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Open]:
    monkeypatch.setattr("attnscope.app.state.owner_of", lambda cookies: None)
    settings = Settings(data=tmp_path, model_folders=(str(tmp_path),))

    def visit(**query: str) -> AppTest:
        app = AppTest.from_string(SCRIPT, default_timeout=60)
        for name, value in query.items():
            app.query_params[name] = value
        return app.run()

    with provided(AnsweringEngine(settings)):
        yield visit


def told(app: AppTest) -> str:
    assert not app.exception
    text = " ".join(str(element.proto.body) for element in app.get("html"))
    assert "Traceback" not in text
    return text


def url(app: AppTest) -> dict[str, str]:
    return {
        name: value[-1] if isinstance(value, list) else value
        for name, value in app.query_params.items()
    }


def test_the_first_screen_answers_before_anything_is_set(visit: Open) -> None:
    app = visit()
    said, shape = told(app), shape_of("demo")
    view = CalculatorView()
    found = estimate(shape, backend=view.backend, length=view.length)
    most = longest(shape, memory_bytes=79 * GIB, backend=view.backend)
    assert "Fits" in said
    assert nbytes(found.total_bytes) in said
    assert count(most) in said
    assert all(term.formula in said for term in found.terms)
    assert len(app.get("plotly_chart")) == 2
    assert url(app) == {}


def test_what_is_changed_is_answered_and_stands_in_the_link(visit: Open) -> None:
    app = visit()
    app.number_input(key="calculator_length_").set_value(300_000).run()
    app.selectbox(key="calculator_backend_").set_value("eager").run()
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
    app.text_area(key="calculator_pasted_").set_value(json.dumps(TINY)).run()
    found = estimate(shape_of(TINY), backend="triton", length=2048)
    assert nbytes(found.total_bytes) in told(app)
    assert list(url(app)) == ["config"]
    assert nbytes(found.total_bytes) in told(visit(**url(app)))
    app.selectbox(key="calculator_model_").set_value("gpt2").run()
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
    app.text_area(key="calculator_pasted_").set_value(text).run()
    assert words in told(app)
    assert url(app) == {"model": "gpt2"}
    app.number_input(key="calculator_batch_").set_value(2).run()
    assert words not in told(app)
