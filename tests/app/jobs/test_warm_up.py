from attnscope.app.jobs.engine import SERVER
from attnscope.app.jobs.warm_up import warm_up
from attnscope.kernels.errors import EngineUnavailable
from tests.app.jobs.conftest import over


def test_it_inspects_once_and_reads_what_the_first_page_shows(monkeypatch, engine):
    submitted, asked = [], []

    def submit(kind, arguments, *, owner):
        submitted.append((kind, arguments, owner))
        return type(engine).submit(engine, "keep", {"name": "c1", "text": "x"}, owner=owner)

    monkeypatch.setattr(engine, "submit", submit)
    monkeypatch.setattr(
        engine, "ask", lambda method, arguments: asked.append((method, arguments["capture"]))
    )

    assert warm_up(engine, {"source": "demo"}, every_s=0.01) == "c1"
    assert submitted == [("inspect", {"source": "demo"}, SERVER)]
    assert asked == [("overview", "c1"), ("diagnostics", "c1")]


def test_a_failure_is_told_to_the_log_and_stops_nothing(monkeypatch, engine, caplog):
    def submit(kind, arguments, *, owner):
        raise EngineUnavailable("No worker.")

    monkeypatch.setattr(engine, "submit", submit)

    assert warm_up(engine, {}) is None
    assert "No worker." in caplog.text
    monkeypatch.undo()
    assert over(engine, engine.submit("step", {}, owner="ada")).state == "done"
