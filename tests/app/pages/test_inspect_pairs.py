"""Inspect over an encoder-decoder: a source and a target, and which attention is shown."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from attnscope.app.jobs.access import provided
from attnscope.app.prompts.links import packed
from attnscope.app.state import Key
from tests.app.pages.engines import FakeEngine, summary
from tests.app.pages.opened import open_page, told, url

SCRIPT = "from attnscope.app.main import main\n\nmain()\n"
SPARSITY = "from attnscope.app.main import sparsity_page\n\nsparsity_page()\n"
KINDS = ("cross", "decoder", "encoder")
Open = Callable[..., AppTest]


class PairEngine(FakeEngine):
    """Answers as the worker does for the copying models."""

    def finish(self, job_id: str) -> None:
        super().finish(job_id)
        arguments = self.submitted[-1]
        if "copying" not in arguments["source"] or job_id not in self.results:
            return
        result = self.results[job_id]
        found = {kind: self._of(kind, arguments, result["capture_id"]) for kind in KINDS}
        result["summary"], result["others"] = found["cross"], found
        result["model"]["reads_pictures"] = arguments["source"].startswith("picture")

    @staticmethod
    def _of(kind: str, arguments: dict[str, Any], capture_id: str) -> dict[str, Any]:
        found = summary({**arguments, "texts": ["a b c"]}, capture_id)
        found |= {"attention": kind, "attentions": list(KINDS)}
        keys = {"tokens": list("abcde"), "words": [], "marks": [], "text": "abcde"}
        found["sequences"][0]["keys"] = keys if kind == "cross" else None
        return found


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("attnscope.app.state.owner_of", lambda cookies: None)
    monkeypatch.setenv("ATTNSCOPE_DATA", str(tmp_path))
    fake = PairEngine()
    with provided(fake):
        yield fake


@pytest.fixture
def visit(engine: PairEngine) -> Open:
    return partial(open_page, SCRIPT)


def test_the_model_s_own_example_and_no_target_at_first(visit: Open, engine: PairEngine) -> None:
    app = visit(model="copying")
    assert not app.exception
    assert engine.submitted[0]["texts"] == ["hello attention"]
    assert engine.submitted[0]["targets"] is None
    assert [area.label for area in app.text_area] == ["Source", "Target"]
    assert app.text_area(key=Key.DRAFT).value == "hello attention"


def test_a_target_is_typed_and_travels_in_the_link(visit: Open, engine: PairEngine) -> None:
    app = visit(model="copying")
    app.text_area(key=Key.TARGET).set_value("hello")
    run = next(button for button in app.button if button.label == "Run")
    app = run.click().run()
    assert engine.submitted[-1]["targets"] == ["hello"]
    again = visit(**url(app))
    assert again.text_area(key=Key.TARGET).value == "hello"
    assert engine.submitted[-1]["targets"] == ["hello"]


def test_which_attention_is_shown_is_chosen_and_linked(visit: Open, engine: PairEngine) -> None:
    app = visit(model="copying", layer="3", head="1", pin="4")
    kinds = app.segmented_control(key=Key.ATTENTION)
    assert kinds.options == ["Cross-attention", "Decoder, target", "Encoder, source"]
    app = kinds.set_value("encoder").run()
    assert not app.exception
    assert url(app) == {"model": "copying", "attention": "encoder"}
    assert len(engine.submitted) == 1
    assert visit(**url(app)).segmented_control(key=Key.ATTENTION).value == "encoder"


@pytest.mark.parametrize("extra", [{"target": packed(("x",))}, {"picture": "0" * 32}])
def test_what_one_stack_does_not_read_is_left_out_with_a_sentence(
    visit: Open, engine: PairEngine, extra: dict[str, str]
) -> None:
    app = visit(prompt=packed(("my own words",)), attention="encoder", **extra)
    assert not app.exception
    assert "it takes one text, and neither a target nor a picture" in told(app)
    assert url(app) == {"prompt": packed(("my own words",))}
    assert app.text_area(key=Key.DRAFT).value == "my own words"
    assert len(engine.submitted) == 1


def test_an_empty_source_is_told_and_nothing_is_lost(visit: Open, engine: PairEngine) -> None:
    app = visit(model="copying")
    app.text_area(key=Key.DRAFT).set_value(" ")
    app.text_area(key=Key.TARGET).set_value("kept")
    app = next(button for button in app.button if button.label == "Run").click().run()
    assert "empty" in told(app)
    assert app.text_area(key=Key.TARGET).value == "kept"
    assert len(engine.submitted) == 1


def test_a_picture_is_the_source_of_one_that_reads_pictures(
    visit: Open, engine: PairEngine
) -> None:
    app = visit(model="picture-copying", target=packed(("red",)))
    assert not app.exception
    assert [area.label for area in app.text_area] == ["Target"]
    assert engine.submitted[0]["shipped_picture"] == "five-squares.png"
    assert engine.submitted[0]["targets"] == ["red"]


def test_sparsity_says_why_not(engine: PairEngine) -> None:
    app = AppTest.from_string(SPARSITY, default_timeout=30)
    app.query_params["model"] = "copying"
    app = app.run()
    assert not app.exception
    assert "copying is an encoder-decoder: patterns are tried on models of one stack" in told(app)
    assert len(engine.submitted) == 1
