import html
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from urllib.parse import parse_qs, urlsplit

import pytest
from streamlit.testing.v1 import AppTest

from attnscope.app.jobs.access import provided
from attnscope.app.jobs.answers import ASKS
from attnscope.app.prompts.links import packed
from attnscope.app.state import Key
from attnscope.kernels.errors import EngineUnavailable, JobMissing, QueueFull
from tests.app.checked import CHECK, EAGER, RESULTS, TEXT, context_in
from tests.app.fake_engine import FakeEngine
from tests.app.pages.opened import open_page, told, url
from tests.app.statuses import RUNNING

SCRIPT = "from attnscope.app.main import backends_page\n\nbackends_page()\n"
Open = Callable[..., AppTest]


class Engine(FakeEngine):
    """Answers truly; its jobs run until the test ends them."""

    def __init__(self, context):
        super().__init__()
        self.context, self.jobs, self.refusal = context, {}, None

    def ask(self, method, arguments, *, timeout_s=None, abandoned=None):
        if self.error is not None:
            raise self.error
        self.asked.append((method, arguments))
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

    def cancel(self, job_id):
        self.end(job_id, "cancelled")

    def health(self):
        return {"status": "ok", "workers": [{"name": "worker auto"}]}


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


def press_check(app: AppTest) -> AppTest:
    return next(button for button in app.button if button.label == "Check").click().run()


def opened(app: AppTest, words: str) -> dict[str, str]:
    """The view of Inspect that a link with these words opens."""
    found = re.search(rf'href="([^"]*)"[^>]*>{re.escape(words)}', told(app))
    assert found is not None, words
    query = parse_qs(urlsplit(html.unescape(found[1])).query)
    return {name: values[0] for name, values in query.items()}


def test_a_first_visit_sees_what_can_run_and_why_not(visit, engine):
    shown = told(visit())
    assert shown.count("not checked yet") == 7
    assert shown.count("<td>refused</td>") == 9
    assert "cuda only" in shown
    assert "demo · 4 layers" in shown
    assert engine.jobs == {}


def test_one_click_checks_the_prompt_in_the_box(visit, engine):
    app = visit()
    app.text_area(key=Key.DRAFT).set_value(TEXT)
    press_check(app)
    arguments, status = engine.jobs["job0"]
    assert status.kind == "check_backends"
    assert (arguments["source"], arguments["texts"]) == ("demo", [TEXT])
    assert url(app) == {"prompt": packed((TEXT,)), "check": arguments["check"]}
    assert "not checked yet" in told(app)


def test_rows_come_while_the_job_runs_and_a_reload_finds_it(visit, engine, tmp_path):
    app = visit()
    app.text_area(key=Key.DRAFT).set_value(TEXT)
    press_check(app)
    arguments, _ = engine.jobs["job0"]
    again = visit(**url(app))
    assert "not checked yet" in told(again)

    # The worker begins, and one backend is judged and not yet timed.
    engine.context = context_in(tmp_path, replace(EAGER, timing=None), check=arguments["check"])
    shown = told(again.run())
    assert "timed last, in turns" in shown
    assert "4.0e-07" in shown
    assert shown.count("not checked yet") == 6


def test_the_end_of_the_job_shows_what_it_found(visit, engine, tmp_path):
    app = visit()
    press_check(app)
    arguments, _ = engine.jobs["job0"]
    context_in(tmp_path, *RESULTS, check=arguments["check"])
    engine.end("job0")
    shown = told(app.run())
    assert "Every backend, held against float64" in shown
    assert "sdpa_flash was asked for, and math ran" in shown
    assert "Not settled, so no ratio of theirs should be quoted: sdpa_flash (" in shown
    assert "checked 2026-11-27 10:00:00 UTC" in shown


def test_a_wrong_backend_is_looked_at_unasked(visit, engine, tmp_path):
    context_in(tmp_path, *RESULTS)
    app = visit(check=CHECK)
    shown = told(app)
    assert app.selectbox(key=Key.CHECK_BACKEND).value == "tiled"
    assert "The wrong head: layer 1, head 0" in shown
    assert "query 3 “&lt;b&gt;four&lt;/b&gt;”, channel 5: 0.5, and 0.25 is right" in shown
    assert "Query 3 sees key 4, the one after it" in shown
    assert "<b>four" not in shown
    assert opened(app, "Open this head in Inspect") | {"prompt": ""} == {
        "prompt": "",
        "layer": "1",
        "head": "0",
        "region": "0-6-0-6",
    }
    assert "Inspect is not offered with it" in shown


def test_a_right_backend_is_chosen_for_all_layers_or_some(visit, engine, tmp_path):
    context_in(tmp_path, *RESULTS)
    app = visit(check=CHECK)
    app.selectbox(key=Key.CHECK_BACKEND).select("sdpa_flash").run()
    assert url(app)["backend"] == "sdpa_flash"
    assert opened(app, "Inspect with sdpa_flash on all layers")["backend"] == "sdpa_flash"
    app.text_input(key=Key.CHECK_LAYERS).set_value("1").run()
    assert opened(app, "Inspect with sdpa_flash on these layers")["layers"] == "1: sdpa_flash"
    assert url(app)["layers"] == "1"
    assert (
        opened(visit(**url(app)), "Inspect with sdpa_flash on these")["layers"] == "1: sdpa_flash"
    )
    app.text_input(key=Key.CHECK_LAYERS).set_value("0-7").run()
    assert "There is no layer 2 to give a backend." in told(app)
    assert url(app)["layers"] == "1"


def test_layers_of_a_link_that_the_model_has_not_are_one_sentence(visit, engine, tmp_path):
    context_in(tmp_path, *RESULTS)
    app = visit(check=CHECK, backend="eager", layers="0-99")
    assert "There is no layer 2 to give a backend." in told(app)
    assert opened(app, "Inspect with eager")


def test_no_map_is_promised_of_what_approximates(visit, engine, tmp_path):
    context_in(tmp_path, *RESULTS)
    app = visit(check=CHECK, backend="linear")
    assert "The worst head: layer 0, head 0" in told(app)
    assert "no map of softmax weights shows what it does" in told(app)


def test_what_a_model_calls_itself_is_text(visit, engine, tmp_path):
    context_in(tmp_path, *RESULTS)
    facts = tmp_path / "checks" / CHECK / "facts.json"
    facts.write_text(facts.read_text().replace('"demo"', '"<i>demo"'))
    shown = told(visit(check=CHECK))
    assert "model &lt;i&gt;demo" in shown
    assert "<i>demo" not in shown


def test_another_prompt_or_model_leaves_what_was_found(visit, engine, tmp_path):
    context_in(tmp_path, *RESULTS)
    app = visit(check=CHECK)
    app.selectbox(key=Key.DTYPE).select("bfloat16")
    next(button for button in app.button if button.label == "Apply").click().run()
    assert url(app) == {"prompt": packed((TEXT,)), "dtype": "bfloat16"}
    assert "not checked yet" in told(app)


@pytest.mark.parametrize(("text", "words"), [(" ", "white space"), ("a\0b", "NUL")])
def test_a_refused_prompt_is_one_sentence(visit, engine, text, words):
    app = visit()
    app.text_area(key=Key.DRAFT).set_value(text)
    assert words in told(press_check(app))
    assert engine.jobs == {}


def test_a_model_that_is_not_there_is_one_sentence(visit):
    shown = told(visit(model="/no/such/folder"))
    assert "Give the folder that holds config.json" in shown


def test_a_full_queue_leaves_everything_as_it_was(visit, engine, tmp_path):
    context_in(tmp_path, *RESULTS)
    app = visit(check=CHECK)
    engine.refusal = QueueFull("You already have 8 jobs waiting.", "Cancel one.")
    shown = told(press_check(app))
    assert "8 jobs waiting" in shown
    assert "The wrong head" in shown
    assert url(app)["check"] == CHECK


@pytest.mark.parametrize(
    ("state", "words"), [("cancelled", "what was found is kept"), ("failed", "memory ran out")]
)
def test_a_job_that_ends_badly_says_so_and_keeps_what_there_is(
    visit, engine, tmp_path, state, words
):
    app = visit()
    press_check(app)
    untimed = replace(EAGER, timing=None)
    context_in(tmp_path, untimed, check=engine.jobs["job0"][0]["check"])
    engine.end("job0", state, reason="memory ran out")
    shown = told(app.run())
    assert words in shown
    assert "4.0e-07" in shown
    assert "not timed" in shown
    assert shown.count("not checked yet") == 6


def test_a_job_that_failed_before_anything_was_found_can_be_asked_again(visit, engine):
    app = visit()
    press_check(app)
    engine.end("job0", "failed", reason="memory ran out")
    shown = told(app.run())
    assert "memory ran out" in shown
    assert "check" not in url(app)
    press_check(app)
    assert "job1" in engine.jobs


def test_a_second_click_ends_the_first_check(visit, engine):
    app = visit()
    press_check(app)
    app.text_area(key=Key.DRAFT).set_value(TEXT)
    press_check(app)
    assert engine.jobs["job0"][1].state == "cancelled"
    assert engine.jobs["job1"][0]["texts"] == [TEXT]


def test_a_check_of_another_server_says_so(visit):
    app = visit(check="0" * 32)
    assert "This check is not on this server." in told(app)
    assert url(app) == {}


def test_a_worker_that_does_not_answer_is_one_sentence(visit, engine):
    engine.error = EngineUnavailable("The worker is starting.", "Try again.")
    assert "The worker is starting." in told(visit())
