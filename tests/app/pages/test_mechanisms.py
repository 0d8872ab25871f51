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
from attnscope.app.jobs.mechanism_folder import Findings, MechanismFolder
from attnscope.app.mechanisms import catalogue, mechanism
from attnscope.app.settings import Settings
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.models.shape import shape_of
from attnscope.profiling.calculator import estimate
from attnscope.profiling.units import count, nbytes, share
from tests.app.pages.engines import FakeEngine
from tests.app.pages.opened import open_page, told, url

SCRIPT = "from attnscope.app.main import mechanisms_page\n\nmechanisms_page()\n"
Open = Callable[..., AppTest]


class AnsweringEngine(FakeEngine):
    """Answers the page's questions itself, as the worker would."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(hold=True)
        self._context = Context(settings=settings, device="cpu", resources=Resources())

    def finish(self, job_id: str) -> None:
        self.statuses[job_id] = replace(self.statuses[job_id], state="done", progress=1.0)

    def ask(
        self,
        method: str,
        arguments: dict[str, Any],
        *,
        timeout_s: float | None = None,
        abandoned: threading.Event | None = None,
    ) -> dict[str, Any]:
        return ASKS[method].answer(json.loads(json.dumps(arguments)), self._context)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[AnsweringEngine]:
    answering = AnsweringEngine(Settings(data=tmp_path))
    with provided(answering):
        yield answering


@pytest.fixture
def visit(monkeypatch: pytest.MonkeyPatch, engine: AnsweringEngine) -> Open:
    monkeypatch.setattr("attnscope.app.state.owner_of", lambda cookies: None)

    return partial(open_page, SCRIPT)


def listed(app: AppTest) -> list[str]:
    return [str(button.key) for button in app.button if str(button.key).startswith("card_")]


def test_the_first_screen_shows_a_mechanism_whole(visit: Open) -> None:
    app = visit()
    said = told(app)
    rule = pattern("sliding_window", window=64)
    assert "Exact over its pattern" in said
    assert count(rule.kept_pairs(512, 512)) in said
    assert share(rule.kept_share(512, 512)) in said
    assert "sparse attention is exact" in said
    assert "https://arxiv.org/abs/2310.06825" in said
    assert len(app.get("plotly_chart")) == 4
    assert app.code[0].value in next(
        card.snippet for card in catalogue() if card.key == "sliding-window"
    )
    assert len(listed(app)) == len(catalogue())
    assert url(app) == {}


@pytest.mark.parametrize(
    "key", ["dense", "paged", "uptraining", "latent", "any-mask", "linformer", "rope"]
)
def test_a_card_opens_from_a_link(visit: Open, key: str) -> None:
    card = mechanism(key)
    said = told(visit(card=key))
    assert card.title.replace("'", "&#x27;") in said
    assert all(claim.right[:20].replace("'", "&#x27;") in said for claim in card.claims)


def test_a_parameter_moves_the_mask_and_stands_in_the_link(visit: Open) -> None:
    app = visit(card="longformer")
    app.select_slider(key="mechanism_set_window").set_value(256).run()
    app.checkbox(key="mechanism_causal").check().run()
    rule = pattern("longformer", window=256, global_tokens=16, causal=True)
    assert count(rule.kept_pairs(512, 512)) in told(app)
    assert url(app) == {"card": "longformer", "set": "window=256", "causal": "1"}
    assert count(rule.kept_pairs(512, 512)) in told(visit(**url(app)))


def test_cards_are_searched_and_filtered(visit: Open) -> None:
    app = visit()
    app.text_input(key="mechanism_search").set_value("bloom llama").run()
    assert listed(app) == []
    assert "No mechanism fits" in told(app)
    app.text_input(key="mechanism_search").set_value("").run()
    app.selectbox(key="mechanism_result").set_value("approximate").run()
    assert listed(app) == ["card_linear", "card_performer", "card_linformer"]
    app.selectbox(key="mechanism_result").set_value("exact").run()
    app.checkbox(key="mechanism_here").check().run()
    assert "card_triton-flash" not in listed(app)
    assert "card_tiled" in listed(app)
    assert url(app) == {"result": "exact", "here": "1"}


def test_what_does_not_run_here_says_why(visit: Open) -> None:
    app = visit(card="triton-flash")
    assert "Not here: compiled kernels need an NVIDIA or AMD GPU" in told(app)
    assert not [button for button in app.button if button.label.startswith("Measure")]


def test_a_measurement_is_asked_for_followed_and_found_again(
    visit: Open, engine: AnsweringEngine, tmp_path: Path
) -> None:
    app = visit(card="sinks-window", set="window=128")
    next(button for button in app.button if button.label == "Measure").click().run()
    told(app)
    asked = {"mechanism": "sinks-window", "values": {"window": 128}, "causal": False}
    assert engine.submitted == [asked]
    assert next(button for button in app.button if button.label == "Measure").disabled
    MechanismFolder(tmp_path).add("sinks-window", record(**asked))
    engine.finish("job1")
    said = told(app.run())
    assert "0.5 of its time" in said
    assert "only 2 runs" in said
    assert "sinks window (window 128, sinks 4)" in said
    assert "A processor" in told(visit(card="sinks-window", set="window=128"))
    assert "A processor" not in told(visit(card="sinks-window"))


def record(**asked: Any) -> dict[str, Any]:
    cell = {"length": 256, "p10_s": 0.9e-3, "p90_s": 4e-3, "runs": 20, "unsettled": ""}
    figures = {"median_s": 2e-3, "peak_bytes": 4096, "failure": ""}
    refused = {"median_s": None, "peak_bytes": None, "failure": "Out of memory."}
    sinks = {"backend": "tiled", "title": "Tiled", "pattern": "sinks window (window 128, sinks 4)"}
    dense = {"backend": "eager", "title": "Eager", "pattern": "causal"}
    return {
        **asked,
        "shape": {"heads": 8, "head_dim": 64, "dtype": "float32"},
        "group_size": 1,
        "created": "2026-11-27T18:00:00Z",
        "device": "A processor",
        "cells": [
            {**cell, **figures, **dense, "name": "dense"},
            {**cell, **figures, **sinks, "name": "mechanism", "median_s": 1e-3}
            | {"unsettled": "only 2 runs"},
            {**cell, **refused, **sinks, "name": "mechanism", "length": 512},
        ],
    }


def test_a_models_positions_are_asked_for_and_found_again(
    visit: Open, engine: AnsweringEngine, tmp_path: Path
) -> None:
    app = visit(card="rope", prompt="One line.")
    next(button for button in app.button if button.label == "Find its positions").click().run()
    told(app)
    asked = {"source": "demo", "revision": None, "device": "auto", "dtype": "auto"}
    asked |= {"text": "One line."}
    assert engine.submitted == [asked]
    Findings(tmp_path, "positions").keep(asked, FOUND)
    engine.finish("job1")
    said = told(app.run())
    assert "<b>2</b>" not in said
    assert "Table &lt;b&gt;2&lt;/b&gt;" in said
    assert "Its own q·k cannot be had: no." in said
    assert "1 of 9 positions are drawn" in said
    app.text_input(key="mechanism_prompt").set_value("Another.").run()
    assert url(app) == {"card": "rope", "prompt": "Another."}
    assert "Table" not in told(app)


def test_the_model_of_positions_is_chosen_as_on_every_page(
    visit: Open, engine: AnsweringEngine
) -> None:
    app = visit(card="rope", on="a/b", on_dtype="bfloat16")
    app.text_input(key="draft_revision").set_value("main")
    next(button for button in app.button if button.label == "Apply").click().run()
    told(app)
    asked = {"card": "rope", "on": "a/b", "on_revision": "main", "on_dtype": "bfloat16"}
    assert url(app) == asked
    next(button for button in app.button if button.label == "Find its positions").click().run()
    assert engine.submitted[0] | {"text": ""} == {
        "source": "a/b",
        "revision": "main",
        "device": "auto",
        "dtype": "bfloat16",
        "text": "",
    }


FOUND = {
    "model": "A model",
    "kinds": ["learned"],
    "evidence": "Table <b>2</b>",
    "rope_type": None,
    "tokens": 2,
    "refusal": "no.",
    "table": [[0.0, 1.0]],
    "positions": 9,
    "distances": [0, 1],
    "curves": {"mean product": [1.0, 0.5]},
    "layers": [
        {
            "layer": 1,
            "kind": "learned",
            "distances": [0, 1],
            "scores": [[1.0, None]],
            "parts": None,
        }
    ],
}


def test_a_rule_is_written_and_one_that_cannot_be_read_is_told(visit: Open) -> None:
    app = visit(card="any-mask", rule="i == j")
    assert "512 are kept" in told(app)
    app.text_input(key="mechanism_rule").set_value("i == ").run()
    assert url(app)["rule"] == "i == j"
    assert "512 are kept" in told(app)
    app.text_input(key="mechanism_rule").set_value("i == j or j == 0").run()
    assert url(app) == {"card": "any-mask", "rule": "i == j or j == 0"}
    assert count(512 + 511) + " are kept" in told(app)


def test_the_advisor_answers_and_its_request_stands_in_the_link(visit: Open) -> None:
    app = visit(tab="advisor", device="RTX 4090", dtype="bfloat16")
    told_first = estimate(shape_of("demo"), backend="sdpa_flash", length=2048)
    said = told(app)
    assert "SDPA flash" in said
    assert nbytes(told_first.total_bytes) in said
    assert "What would change it" in said
    app.number_input(key="mechanism_asked_length").set_value(512).run()
    shorter = estimate(shape_of("demo"), backend="sdpa_flash", length=512)
    assert nbytes(shorter.total_bytes) in told(app)
    assert url(app)["length"] == "512"


def test_the_errors_of_a_model_are_measured_from_the_advisor(
    visit: Open, engine: AnsweringEngine, tmp_path: Path
) -> None:
    app = visit(tab="advisor", device="RTX 4090", dtype="bfloat16", tolerated="50", model="gpt2")
    said = told(app)
    assert "nobody has measured" in said
    next(button for button in app.button if button.label == "Measure its errors").click().run()
    (asked,) = engine.submitted
    assert (asked["model"], asked["tolerated"]) == ("gpt2", 0.5)
    assert asked["text"].startswith("The Brown Lantern")
    kept = {"text": "<b>A text</b>", "tokens": 351, "created": "2026-11-27T18:00:00Z"}
    known = {"errors": {"sliding_window:64": 0.25}, "losses": {"sliding_window:64": [1.0, 1.5]}}
    asked_of = {"source": "gpt2", "revision": None}
    Findings(tmp_path, "errors").keep(asked_of, kept | known | {"unjudged": ""})
    engine.finish("job1")
    said = told(app.run())
    assert "1.000 → 1.500" in said
    assert "“&lt;b&gt;A text&lt;/b&gt;”" in said
    assert share(0.25) in said


def test_what_the_advisor_cannot_answer_is_a_sentence(visit: Open) -> None:
    said = told(visit(tab="advisor", device="H999", dtype="bfloat16"))
    assert "No device is called" in said


@pytest.mark.parametrize(
    ("query", "words"),
    [
        pytest.param({"card": "warp"}, "is not one of", id="card"),
        pytest.param({"set": "window=<b>"}, "settings of the card", id="markup"),
        pytest.param({"set": "window=65"}, "window=65 is not offered", id="value"),
        pytest.param({"set": "hue=1"}, "hue=1 is not offered", id="control"),
        pytest.param({"result": "magic"}, "is not one of", id="kind"),
        pytest.param({"tab": "sale"}, "catalogue, advisor", id="tab"),
        pytest.param({"tolerated": "200"}, "a number from 0 to 100", id="tolerated"),
        pytest.param({"here": "yes"}, "0 or 1", id="switch"),
        pytest.param({"rule": "import os"}, "rule", id="rule"),
        pytest.param({"search": "x" * 81}, "a few words", id="search"),
    ],
)
def test_a_bad_link_is_told_and_the_page_still_answers(
    visit: Open, query: dict[str, str], words: str
) -> None:
    said = told(visit(**query))
    assert words in said
    assert "What it costs over length" in said
