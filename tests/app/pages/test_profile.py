import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from streamlit.testing.v1 import AppTest

from attnscope.app.jobs import profiles
from attnscope.app.jobs.access import provided
from attnscope.app.jobs.profiles import ProfileFolder
from attnscope.app.state import Key
from attnscope.kernels.errors import JobMissing, QueueFull
from tests.app.pages.opened import open_page, told
from tests.app.profiled import (
    LONG,
    LOST,
    PROFILE,
    SHIPS,
    AnsweringEngine,
    context_in,
    know_ceilings,
    shipped_in,
)
from tests.app.statuses import RUNNING
from tests.profiling.records import RECORD

SCRIPT = "from attnscope.app.main import profile_page\n\nprofile_page()\n"
Open = Callable[..., AppTest]


class Engine(AnsweringEngine):
    """Answers truly; its jobs run until the test ends them."""

    def __init__(self, context):
        super().__init__(context)
        self.jobs = {}
        self.refusal = None

    def submit(self, kind, arguments, *, owner):
        if self.refusal is not None:
            raise self.refusal
        job_id = f"job{len(self.jobs)}"
        self.jobs[job_id] = (arguments, replace(RUNNING, id=job_id, kind=kind))
        return job_id

    def under_way(self, kind, arguments, *, owner):
        for job_id, (known, status) in self.jobs.items():
            if known == arguments and not status.is_over:
                return job_id
        return None

    def status(self, job_id):
        if job_id not in self.jobs:
            raise JobMissing("No such job.")
        return self.jobs[job_id][1]

    def end(self, job_id, state="done", reason=""):
        arguments, status = self.jobs[job_id]
        self.jobs[job_id] = (arguments, replace(status, state=state, reason=reason))

    def health(self):
        return {"status": "ok", "workers": [{"name": "worker auto"}]}


@pytest.fixture(autouse=True)
def without_cookies(monkeypatch):
    # AppTest has no browser and gives a mock for its cookies.
    monkeypatch.setattr("attnscope.app.state.owner_of", lambda cookies: "me")


@pytest.fixture
def engine(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTNSCOPE_DATA", str(tmp_path))
    monkeypatch.setattr(profiles, "SHIPPED", tmp_path / "shipped")
    engine = Engine(context_in(tmp_path))
    with provided(engine):
        yield engine


@pytest.fixture
def visit(engine) -> Open:
    return partial(open_page, SCRIPT)


def button(app: AppTest, words: str):
    return next((each for each in app.button if words in each.label), None)


def press(app: AppTest, words: str):
    found = button(app, words)
    assert found is not None
    return found.click()


def press_is_off(app: AppTest, words: str) -> bool:
    found = button(app, words)
    assert found is not None
    return found.disabled


def measured(engine, tmp_path, *records):
    context_in(tmp_path, *(records or (RECORD, LONG, LOST)))


def test_a_first_visit_has_a_plan_that_one_click_starts(visit, engine):
    app = visit()
    assert "Predicted peak memory" in told(app)
    assert "12 of 12 cells run here" in told(app)
    press(app, "Measure 12 cells").run()
    arguments, status = engine.jobs["job0"]
    assert status.kind == "profile"
    assert (arguments["source"], arguments["lengths"]) == ("demo", [64, 128, 256, 512])
    assert app.query_params["profile"] == arguments["profile"]
    assert button(app, "Measure") is None
    assert all(widget.disabled for widget in app.multiselect)


def test_a_first_visit_sees_what_ships_under_a_plan_of_its_own(visit, engine):
    shipped_in(profiles.SHIPPED, RECORD, LONG)
    app = visit()
    assert "ships with Attnscope" in told(app)
    assert app.query_params["profile"] == SHIPS
    press(app, "Measure 12 cells").run()
    arguments, _ = engine.jobs["job0"]
    assert arguments["profile"] != SHIPS
    assert arguments["lengths"] == [64, 128, 256, 512]


def test_ceilings_are_found_on_request_and_give_the_plan_its_times(visit, engine):
    app = visit()
    assert "No time is predicted" in told(app)
    press(app, "Find this device's ceilings").run()
    arguments, status = engine.jobs["job0"]
    assert (status.kind, arguments) == ("ceilings", {"device": "auto"})
    assert press_is_off(app, "Find this device's ceilings")
    know_ceilings(engine.context)
    engine.end("job0")
    shown = told(app.run())
    assert "50 GFLOP/s in float32" in shown.replace("\u202f", " ")
    assert "≥" in shown
    assert not press_is_off(app, "ceilings anew")


def test_the_end_of_the_first_profile_gives_the_plan_its_times(visit, engine):
    app = visit()
    assert "No time is predicted" in told(app)
    press(app, "Measure").run()
    know_ceilings(engine.context)
    engine.end("job0")
    shown = told(app.run())
    assert "No time is predicted" not in shown
    assert "≥" in shown


def test_a_reload_finds_the_job_and_its_end_shows_what_it_found(visit, engine, tmp_path):
    app = visit()
    press(app, "Measure").run()
    arguments, _ = engine.jobs["job0"]
    query = dict(app.query_params)
    again = visit(**query)
    assert button(again, "Measure") is None
    assert "pg-ran" not in told(again)

    context = context_in(tmp_path, RECORD, LOST)
    kept = context.settings.profiles_folder
    (kept / PROFILE).rename(kept / arguments["profile"])
    (kept / arguments["profile"] / "plan.json").write_text(json.dumps(arguments))
    engine.end("job0")
    again.run()
    assert "attention ran as <strong>tiled</strong>" in told(again)
    assert "needs 7 GiB" in told(again)
    assert "power: no meter" in told(again)
    assert "/runs?run" not in told(again)


def test_a_link_to_a_profile_opens_it_with_its_plan(visit, engine, tmp_path):
    measured(engine, tmp_path)
    app = visit(profile=PROFILE)
    assert app.text_input(key=Key.PROFILE_LENGTHS).value == "128, 512"
    assert app.text_input(key=Key.PROFILE_BATCHES).value == "2"
    shown = told(app)
    for words in ("Latency over length", "Kernels that ran", "Report, HTML", "Perfetto trace"):
        assert words in shown
    # One cell of four has no record yet.
    assert button(app, "Go on: 1 left") is not None
    press(app, "Go on").run()
    assert engine.jobs["job0"][0]["profile"] == PROFILE


def test_each_run_that_the_history_holds_leads_to_its_page_and_trouble_is_told(
    visit, engine, tmp_path
):
    measured(engine, tmp_path)
    folder = ProfileFolder(engine.context.settings.profiles_folder, PROFILE)
    folder.keep(LONG.id)
    folder.tell("Not every run is kept: the <disk> is full.")
    shown = told(visit(profile=PROFILE))
    assert f'href="/runs?run={LONG.id}"' in shown
    assert f"/runs?run={RECORD.id}" not in shown
    assert "the &lt;disk&gt; is full" in shown


def test_what_the_visitor_measured_last_is_shown_at_a_first_visit(visit, engine, tmp_path):
    measured(engine, tmp_path)
    app = visit()
    assert app.query_params["profile"] == PROFILE
    assert "Latency over length" in told(app)


def test_another_cell_is_taken_apart_when_chosen(visit, engine, tmp_path):
    measured(engine, tmp_path)
    app = visit(profile=PROFILE)
    app.selectbox(key=Key.PROFILE_CELL).select(RECORD.id).run()
    assert app.query_params["record"] == RECORD.id
    asked = [arguments["record"] for name, arguments in engine.asked if name == "profile_detail"]
    assert asked == [LONG.id, RECORD.id]


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        (Key.PROFILE_LENGTHS, "0", "from 1 to"),
        (Key.PROFILE_LENGTHS, "1000000000", "from 1 to"),
        (Key.PROFILE_LENGTHS, "4096", "2\u202f048 tokens at most"),
        (Key.PROFILE_LENGTHS, ",".join(map(str, range(1, 68))), "201 cells"),
        (Key.PROFILE_BUDGET, "never", "above 0"),
        (Key.PROFILE_BATCHES, "", "names no batches"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_lost(visit, engine, key, text, words):
    app = visit()
    app.text_input(key=key).set_value(text).run()
    assert words in told(app)
    assert app.text_input(key=key).value == text
    started = button(app, "Measure")
    if started is not None:
        started.click().run()
    assert words in told(app)
    assert engine.jobs == {}


def test_an_unknown_backend_of_a_link_is_told(visit):
    assert "warp" in told(visit(backends="warp"))


def test_a_full_queue_leaves_the_plan_as_it_was(visit, engine):
    app = visit(lengths="64")
    engine.refusal = QueueFull("You already have 8 jobs waiting.", "Cancel one.")
    press(app, "Measure").run()
    assert "8 jobs waiting" in told(app)
    assert "profile" not in app.query_params
    assert button(app, "Measure 3 cells") is not None


@pytest.mark.parametrize(
    ("state", "words"), [("cancelled", "what was measured is kept"), ("failed", "memory ran out")]
)
def test_a_job_that_ends_badly_says_so(visit, engine, state, words):
    app = visit(lengths="64")
    press(app, "Measure").run()
    engine.end("job0", state, reason="memory ran out")
    assert words in told(app.run())
    assert button(app, "Measure 3 cells") is not None
