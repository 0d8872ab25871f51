from pathlib import Path

import pytest

from attnscope.app.asking.captures import (
    Watched,
    arguments_of,
    finished,
    first,
    inside,
    start,
    texts_of,
)
from attnscope.app.prompts import examples
from attnscope.app.prompts.links import KeptPrompts
from attnscope.app.views.inspect import View
from attnscope.kernels.errors import JobFailed, PromptRefused
from tests.app.pages.engines import FakeEngine


def test_prompts_come_from_the_view_the_store_or_the_examples(tmp_path: Path) -> None:
    kept = KeptPrompts(tmp_path)
    name = kept.keep(("long",))
    assert texts_of(View(texts=("a", "b")), kept) == ("a", "b")
    assert texts_of(View(stored=name), kept) == ("long",)
    assert texts_of(View(), kept) == (examples.examples()[0].text,)
    with pytest.raises(PromptRefused):
        texts_of(View(example="none"), kept)
    with pytest.raises(PromptRefused):
        texts_of(View(stored="0" * 32), kept)


def test_the_server_s_first_job_is_the_first_visit_s() -> None:
    assert first() == arguments_of(View(), texts_of(View(), KeptPrompts(Path("unused"))))


def test_arguments_depend_on_what_decides_the_capture_and_on_nothing_else() -> None:
    one = arguments_of(View(layer=1, head=2, region=(0, 1, 0, 1)), ("a",))
    assert one == arguments_of(View(), ("a",))
    assert one != arguments_of(View(backend="tiled"), ("a",))
    assert one != arguments_of(View(chat=True), ("a",))
    assert arguments_of(View(revision=""), ("a",))["revision"] is None


def test_a_job_under_way_is_joined() -> None:
    engine = FakeEngine(hold=True)
    arguments = arguments_of(View(), ("a",))
    job = start(engine, arguments, owner="me")
    assert start(engine, arguments, owner="me") == job
    assert start(engine, arguments_of(View(), ("b",)), owner="me") != job
    engine.finish(job)
    assert start(engine, arguments, owner="me") != job


def test_what_a_job_left_is_shown() -> None:
    engine = FakeEngine()
    job = start(engine, arguments_of(View(), ("a b c", "d")), owner="me")
    shown = finished(engine, Watched(job_id=job, view=View(layer=9)))
    assert shown.capture_id == "capture1"
    assert shown.tokens == 3
    assert shown.model["max_length"] == 2048
    view = inside(View(layer=9, head=99, sequence=7, pinned=2), shown)
    assert (view.layer, view.head, view.sequence, view.pinned) == (3, 7, 1, None)


def test_a_failed_job_raises_its_reason() -> None:
    engine = FakeEngine(fail=("The worker died.", "Run it again.", "ab12"))
    job = start(engine, arguments_of(View(), ("a",)), owner="me")
    with pytest.raises(JobFailed, match=r"The worker died\."):
        finished(engine, Watched(job_id=job, view=View()))
