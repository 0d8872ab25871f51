import pytest

from attnscope.app.jobs.engine import Engine
from attnscope.app.jobs.local import LocalEngine
from tests.app.fake_engine import FakeEngine


@pytest.mark.parametrize("kind", [LocalEngine, FakeEngine])
def test_every_engine_has_the_whole_interface(kind):
    asked = {name for name in vars(Engine) if not name.startswith("_")}
    assert asked >= {"submit", "status", "events", "cancel", "result", "ask", "health"}
    assert [name for name in asked if not callable(getattr(kind, name, None))] == []


@pytest.mark.parametrize(
    ("state", "is_over"),
    [("queued", False), ("running", False), ("done", True), ("failed", True), ("cancelled", True)],
)
def test_a_status_knows_whether_anything_more_will_happen(state, is_over):
    from dataclasses import replace

    assert replace(FakeEngine().status("a" * 32), state=state).is_over is is_over
