import html
import re
from dataclasses import replace
from functools import partial
from urllib.parse import parse_qs, urlsplit

import pytest

from attnscope.app.jobs.access import provided
from attnscope.app.jobs.answers import ASKS
from attnscope.app.jobs.work import WORK
from attnscope.app.prompts.examples import OPENING
from attnscope.app.prompts.links import packed, unpacked
from attnscope.app.state import Key
from attnscope.kernels.errors import JobCancelled, JobMissing, QueueFull
from tests.app.fake_engine import FakeEngine
from tests.app.generated import GENERATION, TEXT, asked, context_in
from tests.app.pages.opened import open_page, told, url
from tests.app.statuses import RUNNING

SCRIPT = "from attnscope.app.main import generation_page\n\ngeneration_page()\n"


class Engine(FakeEngine):
    """Answers truly; its jobs wait until the test runs them."""

    def __init__(self, context):
        super().__init__()
        self.context, self.jobs, self.refusal = context, {}, None

    def ask(self, method, arguments, *, timeout_s=None, abandoned=None):
        return ASKS[method].answer(arguments, self.context)

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

    def run(self, job_id):
        WORK["generate"](self.jobs[job_id][0], self.context)
        self.end(job_id)

    def cancel(self, job_id):
        self.end(job_id, "cancelled")

    def health(self):
        return {"status": "ok", "workers": [{"name": "worker auto"}]}


@pytest.fixture(autouse=True)
def without_cookies(monkeypatch):
    import torch

    torch.set_num_threads(1)
    monkeypatch.setattr("attnscope.app.state.owner_of", lambda cookies: "me")


@pytest.fixture
def engine(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTNSCOPE_DATA", str(tmp_path))
    engine = Engine(context_in(tmp_path))
    with provided(engine):
        yield engine


@pytest.fixture
def visit(engine):
    return partial(open_page, SCRIPT)


def press(app, words):
    return next(button for button in app.button if button.label == words).click().run()


def opened(app):
    """The view of Inspect that the link opens."""
    found = re.search(r'href="([^"]*)"[^>]*>Open in Inspect', told(app))
    assert found is not None
    query = parse_qs(urlsplit(html.unescape(found[1])).query)
    return {name: values[0] for name, values in query.items()}


def test_a_first_visit_continues_an_opening_before_anything_is_set(visit, engine):
    app = visit()
    arguments, status = engine.jobs["job0"]
    assert status.kind == "generate"
    assert (arguments["source"], arguments["texts"]) == ("demo", [OPENING])
    assert url(app)["generation"] == arguments["generation"]
    assert app.text_area(key=Key.DRAFT).value == OPENING


def test_a_reload_in_the_middle_finds_it_still_running(visit, engine):
    app = visit()
    again = visit(**url(app))
    assert list(engine.jobs) == ["job0"]
    engine.run("job0")
    shown = told(again.run())
    assert "48 tokens after 45 of the prompt" in shown
    assert "equal to the byte after each of 48 steps" in shown


def test_what_it_left_is_told_downloaded_and_opened_in_inspect(visit, engine):
    done = WORK["generate"](asked(), engine.context)
    app = visit(generation=GENERATION, layer="2", head="5", step="3")
    shown = told(app)
    assert "5 tokens after 9 of the prompt" in shown
    assert "tiled" in shown
    assert len(engine.jobs) == 0
    assert url(app) | {"prompt": ""} == {
        "prompt": "",
        "generation": GENERATION,
        "tokens": "5",
        "prefill": "tiled",
        "layer": "2",
        "head": "5",
        "step": "3",
    }
    link = opened(app)
    assert (link["made"], link["layer"], link["head"]) == (done["capture"], "2", "5")
    assert unpacked(link["prompt"])[0].startswith(TEXT)
    assert len(unpacked(link["prompt"])[0]) > len(TEXT)


def test_the_prompt_in_the_box_is_continued_with_what_the_form_says(visit, engine):
    app = visit(generation=GENERATION, prompt=packed((TEXT,)))
    assert "This generation is not on this server." in told(app)
    app.text_area(key=Key.DRAFT).set_value("Mara")
    press(app, "Generate")
    assert engine.jobs["job0"][0]["texts"] == ["Mara"]
    app.number_input(key=Key.GENERATION_TOKENS).set_value(7)
    app.number_input(key=Key.GENERATION_TEMPERATURE).set_value(0.5)
    app.selectbox(key=Key.GENERATION_DECODE).select("sdpa_flash")
    app.selectbox(key=Key.GENERATION_CACHE).select("reserved")
    press(app, "Apply and generate")
    assert engine.jobs["job0"][1].state == "cancelled"
    arguments = engine.jobs["job1"][0]
    assert (arguments["tokens"], arguments["temperature"], arguments["cache"]) == (
        *(7, 0.5, "reserved"),
    )
    assert (arguments["prefill"], arguments["decode"]) == ("eager", "sdpa_flash")
    assert "drawn, temperature 0.5, seed 0" in told(app)


def test_a_cancelled_one_keeps_what_was_said(visit, engine):
    app = visit()
    arguments, _ = engine.jobs["job0"]
    context = engine.context

    def stop(progress):
        if progress.step.startswith("Token 2"):
            context.stop.set()

    context.report = stop
    with pytest.raises(JobCancelled):
        WORK["generate"](arguments, context)
    engine.cancel("job0")
    shown = told(app.run())
    assert "Cancelled; what was said is kept." in shown
    assert opened(app)["made"]


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_one_that_said_nothing_says_so_and_can_be_asked_again(visit, engine, state):
    app = visit()
    engine.end("job0", state, reason="memory ran out")
    shown = told(app.run())
    assert ("memory ran out" if state == "failed" else "nothing had been said") in shown
    assert "generation" not in url(app)
    press(app, "Generate")
    assert "job1" in engine.jobs


def test_a_full_queue_leaves_everything_as_it_was(visit, engine):
    WORK["generate"](asked(), engine.context)
    app = visit(generation=GENERATION)
    engine.refusal = QueueFull("You already have 8 jobs waiting.", "Cancel one.")
    shown = told(press(app, "Generate"))
    assert "8 jobs waiting" in shown
    assert url(app)["generation"] == GENERATION


def test_a_model_that_is_not_there_is_one_sentence(visit):
    assert "Give the folder that holds config.json" in told(visit(model="/no/such/folder"))
