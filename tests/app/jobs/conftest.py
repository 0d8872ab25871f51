"""Engines over fake work; whatever a test starts is gone when it ends."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from attnscope.app.jobs.engine import JobStatus
from attnscope.app.jobs.local import LocalEngine
from attnscope.app.jobs.tables import Tables
from attnscope.app.settings import Settings

FAKES = Tables(
    work="tests.app.jobs.fakes:WORK",
    asks="tests.app.jobs.fakes:ASKS",
    prepare_worker="",
    prepare_reader="",
)


def processes_of(engine: LocalEngine) -> list[int]:
    return [seat.process.pid for seat in engine._seats if seat.process]


def is_alive(pid: int) -> bool:
    return (
        Path(f"/proc/{pid}").exists()
        and "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1]
    )


def until(
    engine: LocalEngine, job_id: str, done: Callable[[JobStatus], bool], timeout_s: float = 8
) -> JobStatus:
    end = time.monotonic() + timeout_s
    while not done(status := engine.status(job_id)):
        assert time.monotonic() < end, f"still {status}"
        time.sleep(0.005)
    return status


def over(engine: LocalEngine, job_id: str, timeout_s: float = 8) -> JobStatus:
    return until(engine, job_id, lambda status: status.is_over, timeout_s)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[LocalEngine]:
    with LocalEngine(Settings(data=tmp_path, jobs_per_owner=5), FAKES) as engine:
        yield engine
        pids = processes_of(engine)
    assert not [pid for pid in pids if is_alive(pid)]
