"""The page Needle: opened, run, looked at, and told what went wrong."""

import html
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from urllib.parse import parse_qs, urlsplit

import pytest
from streamlit.testing.v1 import AppTest

from attnscope.app.jobs.access import provided
from attnscope.app.state import Key
from attnscope.app.views.needle import NeedleView, arguments_of
from tests.app.needles import ARGUMENTS, RUN, TRIALS, context_in
from tests.app.pages.opened import open_page, told, url
from tests.app.pages.test_backends import Engine

SCRIPT = "from attnscope.app.main import needle_page\n\nneedle_page()\n"
GRID = {"lengths": "64,128", "depths": "0,50", "seeds": "2"}
Open = Callable[..., AppTest]


@pytest.fixture(autouse=True)
def without_cookies(monkeypatch):
    # AppTest has no browser and gives a mock for its cookies.
    monkeypatch.setattr("attnscope.app.state.owner_of", lambda cookies: "me")


@pytest.fixture
def engine(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTNSCOPE_DATA", str(tmp_path))
    engine = Engine(context_in(tmp_path))
    with provided(engine):
        yield engine


@pytest.fixture
def visit(engine) -> Open:
    return partial(open_page, SCRIPT)


def press_run(app: AppTest) -> AppTest:
    return next(button for button in app.button if button.label == "Run").click().run()


def test_a_first_visit_runs_the_demo_before_anything_is_set(visit, engine):
    app = visit()
    told(app)
    ((arguments, status),) = engine.jobs.values()
    assert status.kind == "needle"
    assert arguments == arguments_of(NeedleView(), NeedleView().setting, "")
    assert url(app) == {}
    told(visit())  # another session of the same visitor finds the job
    assert len(engine.jobs) == 1


def test_another_grid_waits_until_it_is_asked_for(visit, engine):
    app = visit(**GRID)
    assert "8 trials" in told(app)
    assert engine.jobs == {}
    app.text_input(key=Key.NEEDLE_DEPTHS).set_value("10")
    app.selectbox(key=Key.NEEDLE_TASK).set_value("passkey")
    app.checkbox(key=Key.NEEDLE_BESIDE).check()
    press_run(app)
    first, beside = (arguments for arguments, _ in engine.jobs.values())
    assert (first["task"], first["depths"], first["pattern"]) == ("passkey", [10.0], None)
    assert beside["pattern"]["key"] == "sinks_window"
    assert url(app)["beside"] == "tiled.sinks_window.64.4"


def test_what_was_found_is_shown_with_its_heads_and_its_cell(visit, tmp_path):
    context_in(tmp_path, *TRIALS)
    app = visit(**GRID)
    shown = told(app)
    assert "Finds it at every depth up to 64 tokens." in shown
    assert "At 128: 1 of 4 exact, found at 50 %." in shown
    # The last length at which something is found is looked at; its text is text.
    assert "128 tokens, needle at 50 %" in shown
    assert "One &lt;i&gt;day&lt;/i&gt;." in shown
    assert "<mark><b> fox</b></mark>" in shown
    assert "&lt;b&gt;hen&lt;/b&gt;" in shown
    assert "Over 5 trials, the trials answered exactly." in shown
    found = re.search(r'href="([^"]*)"[^>]*>layer 1, head 1', shown)
    assert found is not None
    query = parse_qs(urlsplit(html.unescape(found[1])).query)
    assert (query["layer"], query["head"], query["backend"]) == (["1"], ["1"], ["tiled"])


def test_a_cell_a_score_and_a_part_are_chosen_and_stand_in_the_link(visit, tmp_path):
    context_in(tmp_path, *TRIALS)
    app = visit(**GRID)
    app.selectbox(key=Key.NEEDLE_CELL).set_value((0, 64, 0.0)).run()
    app.selectbox(key=Key.NEEDLE_PART).set_value("first").run()
    shown = told(app)
    assert "64 tokens, needle at 0 %" in shown
    assert url(app) == {**GRID, "cell": "64-0", "part": "first"}


def test_trials_are_drawn_while_they_come_and_a_cancellation_keeps_them(visit, engine, tmp_path):
    app = press_run(visit(**GRID))
    context_in(tmp_path, *TRIALS[:3])
    assert "Finds it at every depth up to 64 tokens." in told(app.run())
    engine.end("job0", "cancelled")
    shown = told(app.run())
    assert "finished trials are kept" in shown
    assert "At 128: 0 of 1 exact." in shown


def test_a_refusal_of_the_job_is_said_in_its_words(visit, engine):
    app = press_run(visit(**GRID))
    engine.end("job0", "failed", "Demo model reads 2,048 tokens.")
    assert "Demo model reads 2,048 tokens." in told(app.run())


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        (Key.NEEDLE_LENGTHS, "many", "is no length"),
        (Key.NEEDLE_DEPTHS, "", "names no depth"),
        (Key.NEEDLE_LENGTHS, ",".join(map(str, range(20, 200))), "200 is the limit"),
    ],
)
def test_a_grid_that_cannot_be_asked_for_is_refused(visit, engine, key, text, words):
    app = visit(**GRID)
    app.text_input(key=key).set_value(text)
    press_run(app)
    assert words in told(app)
    assert engine.jobs == {}


def test_a_backend_that_approximates_has_no_heads_to_show(visit, tmp_path):
    view = replace(NeedleView(), lengths=(64, 128), depths=(0, 50), seeds=2)
    linear = arguments_of(view, replace(view.setting, backend="linear"), "")
    assert linear["run"] != RUN == ARGUMENTS["run"]
    trials = [{**each, "attention": None} for each in TRIALS]
    context_in(tmp_path, *trials, arguments=linear)
    shown = told(visit(**GRID, on="linear"))
    assert "it has no softmax weights" in shown
    assert "Heads that look there" not in shown
