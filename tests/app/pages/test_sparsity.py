"""The page over an engine that does its work in this process."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

from attnscope.app.jobs.access import provided
from attnscope.app.jobs.answers import ASKS
from attnscope.app.jobs.context import Context, Resources
from attnscope.app.jobs.engine import JobStatus
from attnscope.app.jobs.work import WORK
from attnscope.app.kept_matrices import KeptMatrices
from attnscope.app.patterns_offered import SETTINGS
from attnscope.app.prompt_links import packed
from attnscope.app.settings import Settings
from attnscope.app.state import Key
from attnscope.kernels.errors import AttnscopeError, JobCancelled, JobFailed, JobMissing
from tests.app.statuses import RUNNING

SCRIPT = "from attnscope.app.main import sparsity_page\n\nsparsity_page()\n"
PROMPT = 8 * "Mara found the silver key. Later Mara found the silver key. "
Open = Callable[..., AppTest]


class Engine:
    """Does each job as it is submitted, unless its kind is held; then the test ends it."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.jobs: dict[str, tuple[str, dict[str, Any], JobStatus]] = {}
        self.results: dict[str, Any] = {}
        self.held: set[str] = set()

    def submit(self, kind: str, arguments: dict[str, Any], *, owner: str) -> str:
        job_id = f"job{len(self.jobs)}"
        asked = json.loads(json.dumps(arguments))
        self.jobs[job_id] = (kind, asked, replace(RUNNING, id=job_id, kind=kind))
        if kind not in self.held:
            self.work(job_id)
        return job_id

    def work(self, job_id: str) -> None:
        kind, arguments, _ = self.jobs[job_id]
        try:
            self.results[job_id] = json.loads(json.dumps(WORK[kind](arguments, self.context)))
            self.end(job_id, "done")
        except AttnscopeError as error:
            self.end(job_id, "failed", error.message)

    def end(self, job_id: str, state: Any, reason: str = "") -> None:
        kind, arguments, status = self.jobs[job_id]
        self.jobs[job_id] = (kind, arguments, replace(status, state=state, reason=reason))

    def kinds(self) -> list[str]:
        return [kind for kind, _, _ in self.jobs.values()]

    def under_way(self, kind: str, arguments: dict[str, Any], *, owner: str) -> str | None:
        for job_id, (known, asked, status) in self.jobs.items():
            if known == kind and asked == json.loads(json.dumps(arguments)) and not status.is_over:
                return job_id
        return None

    def status(self, job_id: str) -> JobStatus:
        if job_id not in self.jobs:
            raise JobMissing("No such job.")
        return self.jobs[job_id][2]

    def cancel(self, job_id: str) -> None:
        if not self.status(job_id).is_over:
            self.end(job_id, "cancelled")

    def result(self, job_id: str) -> dict[str, Any]:
        status = self.status(job_id)
        if status.state == "failed":
            raise JobFailed(status.reason)
        if status.state == "cancelled":
            raise JobCancelled("Cancelled.")
        return self.results[job_id]

    def ask(self, method: str, arguments: dict[str, Any], **_: Any) -> dict[str, Any]:
        return ASKS[method].answer(json.loads(json.dumps(arguments)), self.context)

    def health(self) -> dict[str, Any]:
        return {"status": "ok", "workers": [{"name": "worker auto"}]}


@pytest.fixture(scope="module")
def context(tmp_path_factory) -> Context:
    torch.set_num_threads(1)
    data = tmp_path_factory.mktemp("data")
    return Context(settings=Settings(data=data), device="cpu", resources=Resources())


@pytest.fixture
def engine(context: Context, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    # AppTest has no browser and gives a mock for its cookies.
    monkeypatch.setattr("attnscope.app.state.owner_of", lambda cookies: "me")
    monkeypatch.setenv("ATTNSCOPE_DATA", str(context.settings.data))
    monkeypatch.setattr("attnscope.app.sparsity_asking.MOMENT_S", 0.1)
    engine = Engine(context)
    with provided(engine):
        yield engine


@pytest.fixture
def visit(engine: Engine) -> Open:
    def visit(**query: str) -> AppTest:
        app = AppTest.from_string(SCRIPT, default_timeout=60)
        for name, value in query.items():
            app.query_params[name] = value
        return app.run()

    return visit


def told(app: AppTest) -> str:
    assert not app.exception
    text = " ".join(str(element.proto.body) for element in app.get("html"))
    assert "Traceback" not in text
    assert "error of its own" not in text
    return text


def url(app: AppTest) -> dict[str, str]:
    return {
        name: value[-1] if isinstance(value, list) else value
        for name, value in app.query_params.items()
    }


def table(app: AppTest) -> Any:
    return app.dataframe[0].value.set_index("pattern")


def test_the_first_screen_has_masks_mass_and_error_before_anything_is_set(visit: Open) -> None:
    app = visit()
    said = told(app)
    assert "pairs kept" in said
    assert "exact over its pairs, and a different function from dense attention" in said
    assert len(app.get("plotly_chart")) == 2
    rows = table(app)
    assert len(rows) == 13
    assert rows.loc["causal", "mass"] == pytest.approx(1, abs=1e-3)
    assert rows.loc["causal", "error"] == pytest.approx(0, abs=1e-3)
    assert rows["mask"].str.startswith("data:image/png;base64,").all()
    best = rows[rows["best"] == "best"]
    within = rows[rows["kept"] <= 0.25]
    assert len(best) == 1
    assert best["mass"].item() == within["mass"].max()
    assert set(url(app)) == {"layer", "head"}


def test_a_change_is_drawn_stands_in_the_link_and_comes_back_with_it(visit: Open) -> None:
    app = visit(prompt=packed_prompt())
    app.number_input(key="sparsity_sinks_window_window").set_value(3).run()
    app.number_input(key="sparsity_length").set_value(4096).run()
    app.selectbox(key="sparsity_block").set_value(32).run()
    assert "keys of the last query" in told(app)
    assert url(app)["set"] == "sinks_window.window.3"
    assert url(app)["length"] == "4096"
    again = visit(**url(app))
    assert table(again).equals(table(app))
    assert url(again) == url(app)
    assert re.findall(r"<dd>.*?</dd>", told(again)) == re.findall(r"<dd>.*?</dd>", told(app))


def packed_prompt() -> str:
    return packed((PROMPT,)) or ""


def test_every_family_has_its_controls_and_its_mask(visit: Open) -> None:
    app = visit(prompt=packed_prompt())
    for key, settings in SETTINGS.items():
        app.selectbox(key="sparsity_pattern").set_value(key).run()
        assert url(app).get("pattern", "sinks_window") == key
        assert len(app.get("plotly_chart")) == (0 if key == "matrix" else 2)
        for setting in settings:
            assert app.number_input(key=f"sparsity_{key}_{setting.name}").value == setting.default
        told(app)


def test_a_window_over_the_prompt_is_not_tried_and_says_so(visit: Open) -> None:
    app = visit(prompt=packed(("Mara found the key",)) or "")
    assert "Not tried" in told(app)
    assert "sliding window" in told(app)
    assert len(table(app)) < 13


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("i <", "The rule cannot be read"),
        ("__import__('os').system('x')", "The rule holds “__import__”"),
        ("i % j == 0", "divides by what can be zero"),
        ("<b>i</b>", "The rule"),
    ],
)
def test_a_bad_rule_is_told_and_nothing_is_lost(
    visit: Open, engine: Engine, text: str, said: str
) -> None:
    app = visit(prompt=packed_prompt(), pattern="rule", rule="i - j < 3")
    jobs = len(engine.jobs)
    app.text_input(key=Key.SPARSITY_RULE).set_value(text).run()
    assert said in told(app)
    assert "<b>i</b>" not in told(app)
    assert len(engine.jobs) == jobs
    assert app.text_input(key=Key.SPARSITY_RULE).value == text
    assert url(app)["rule"] == "i - j < 3"
    app.text_input(key=Key.SPARSITY_RULE).set_value("i - j  < 4").run()
    assert said not in told(app)
    assert url(app)["rule"] == "i - j < 4"


def test_a_rule_that_sees_nothing_is_refused(visit: Open) -> None:
    app = visit(prompt=packed_prompt(), pattern="rule", rule="i - j > 999")
    assert "This pattern sees nothing at" in told(app)
    assert len(table(app)) == 12


@pytest.mark.parametrize(
    ("query", "said"),
    [
        pytest.param({"pattern": "warp"}, "is not one of", id="pattern"),
        pytest.param({"pattern": "matrix", "matrix": "0" * 32}, "not kept here", id="matrix"),
        pytest.param({"pattern": "axial", "set": "axial.height.1"}, "has 16 places", id="axial"),
        pytest.param(
            {"length": "131072", "block": "16"}, "Choose larger blocks", id="too many blocks"
        ),
        pytest.param({"model": "no/such-model"}, "no/such-model", id="model"),
    ],
)
def test_bad_input_is_told_in_a_sentence(visit: Open, query: dict[str, str], said: str) -> None:
    assert said in told(visit(**query))


def test_an_uploaded_matrix_is_a_pattern_like_the_others(visit: Open, context: Context) -> None:
    name = KeptMatrices(context.settings.matrices_folder).keep(np.tril(np.ones((200, 200), bool)))
    app = visit(prompt=packed_prompt(), pattern="matrix")
    assert "Upload a matrix" in told(app)
    app = visit(prompt=packed_prompt(), pattern="matrix", matrix=name)
    assert table(app).loc["matrix (200 by 200)", "mass"] == pytest.approx(1, abs=1e-3)


def test_a_long_job_is_watched_found_after_a_reload_and_cancelled(
    visit: Open, engine: Engine
) -> None:
    engine.held = {"sparsity_effects"}
    app = visit(prompt=packed_prompt(), set="local.window.3")
    assert not app.dataframe
    again = visit(prompt=packed_prompt(), set="local.window.3")
    assert engine.kinds().count("sparsity_effects") == 1
    job = next(job for job, (kind, _, _) in engine.jobs.items() if kind == "sparsity_effects")
    engine.work(job)
    assert len(table(again.run())) == 13
    engine.end(job, "cancelled")
    app.run()
    assert "Cancelled" in told(app)
    assert engine.kinds().count("sparsity_effects") == 1


def test_a_job_that_fails_says_why_and_is_not_asked_again(visit: Open, engine: Engine) -> None:
    engine.held = {"sparsity_effects"}
    app = visit(prompt=packed_prompt(), set="local.window.5")
    engine.end("job1" if "job1" in engine.jobs else "job0", "failed", "The worker died.")
    app.run()
    assert "The worker died." in told(app)
    app.run()
    assert engine.kinds().count("sparsity_effects") == 1
