import logging
from dataclasses import replace
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from attnscope.app.asking.captures import Shown
from attnscope.app.components.model_bar import BackendChoice, backend_choices, facts
from attnscope.app.components.notice import guarded, unexpected
from attnscope.app.jobs.words import pace, step
from attnscope.app.page_session import Notice
from attnscope.app.views.inspect import View
from attnscope.kernels.errors import PromptRefused
from tests.app.pages.engines import summary
from tests.app.statuses import RUNNING

N = "\u202f"


def test_a_notice_is_shown_as_text() -> None:
    def script() -> None:
        from attnscope.app.components.notice import notice
        from attnscope.app.page_session import Notice

        notice(
            Notice(message="<img src=x onerror=alert(1)> & **b**", remedy="<a>", reference="ab12")
        )

    app = AppTest.from_function(script, default_timeout=30).run()
    body = app.get("html")[0].proto.body
    assert "&lt;img src=x onerror=alert(1)&gt; &amp; **b**" in body
    assert "<img" not in body
    assert "<a>" not in body
    assert "ab12" in body


def test_whatever_goes_wrong_becomes_a_sentence(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Notice] = []

    def refused() -> None:
        raise PromptRefused("The prompt is empty.", "Type one.")

    def broken() -> None:
        raise KeyError("a secret")

    guarded(refused, tell=told.append)()
    assert told == [Notice(message="The prompt is empty.", remedy="Type one.")]
    with caplog.at_level(logging.ERROR):
        guarded(broken, tell=told.append)()
    assert told[1].kind == "failed"
    assert "secret" not in str(told[1])
    assert told[1].reference in caplog.text
    assert "a secret" in caplog.text


def test_two_failures_have_two_codes() -> None:
    assert unexpected(ValueError()).reference != unexpected(ValueError()).reference


@pytest.mark.parametrize(
    ("changes", "said", "paced"),
    [
        ({}, "Running the prompt", f"42 % · 12.3 layers/s · about 1{N}min 15{N}s left"),
        (
            {"rate_unit": "bytes", "rate": 5 * 2**20, "eta_s": None},
            "Running the prompt",
            f"42 % · 5.00{N}MiB/s",
        ),
        (
            {"rate_unit": "share", "step": ""},
            "Starting the worker",
            f"42 % · about 1{N}min 15{N}s left",
        ),
        ({"state": "queued", "queued_ahead": 3, "rate": None}, "Waiting; 3 before this", ""),
        ({"state": "queued", "rate": None}, "Starting", ""),
    ],
)
def test_progress_says_how_far_how_fast_how_long(
    changes: dict[str, Any], said: str, paced: str
) -> None:
    status = replace(RUNNING, **{"progress": 0.425, "rate": 12.34, "eta_s": 75, **changes})
    assert step(status) == said
    assert pace(status) == paced


def test_the_bar_says_what_is_loaded() -> None:
    arguments = {"source": "org/<b>x</b>", "revision": "0123456789abcdef", "backend": "tiled"}
    given = summary({**arguments, "texts": ["a b", "c"]}, "c1")
    model = {"nbytes": 7 * 2**20, "max_length": 2048}
    shown = Shown(capture_id="c1", summary=given, model=model, view=View())
    said = {name: value for name, value, _ in facts(View(), shown)}
    assert said == {
        "model": "org/<b>x</b> · 4 layers, 8 heads, 2 kv",
        "revision": "0123456789",
        "backend": "tiled",
        "device": f"cpu · float32 · 7.00{N}MiB",
        "captured": f"2 prompts, 2 of 2{N}048 tokens · 1.91{N}MiB",
    }
    assert [name for name, _, _ in facts(View(), None)] == ["model", "backend"]


def test_backends_come_with_their_refusals() -> None:
    found = backend_choices(
        [
            {"name": "eager", "title": "Eager", "exact": True, "refusal": ""},
            {"name": "flash", "title": "Flash", "refusal": "Needs CUDA."},
        ]
    )
    assert found == (
        BackendChoice(name="eager", title="Eager"),
        BackendChoice(name="flash", title="Flash", refusal="Needs CUDA."),
    )


def test_the_prompt_box_states_the_limits_before() -> None:
    def script() -> None:
        from pathlib import Path

        from attnscope.app.components.prompt_box import prompt_box
        from attnscope.app.prompts.drafts import PromptDrafts
        from attnscope.app.prompts.links import KeptPrompts
        from attnscope.app.state import Session

        def nothing(*_: object) -> None:
            """Stand in for what a page does."""

        kept = KeptPrompts(Path())
        session = Session({}, {}, kept)
        prompt_box(
            PromptDrafts(session=session, kept=kept, look_at=nothing),
            limit=2048,
            has_template=True,
            bytes_per_token=10_240,
            on_run=nothing,
        )

    app = AppTest.from_function(script, default_timeout=30).run()
    assert not app.exception
    assert f"up to 2{N}048 tokens" in app.text_area[0].placeholder
    assert "8.00\u202fMiB and 500 prompts" in app.caption[0].value
    assert [box.label for box in app.checkbox] == ["Chat"]
    assert f"10.0{N}KiB a token" in app.button[0].help
