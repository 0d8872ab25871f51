"""One place for a worker, the questions that wait there, and how long each waits."""

import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic

from attnscope.app.jobs.pace import Pace
from attnscope.app.jobs.process import WorkerProcess
from attnscope.app.jobs.wire import Message
from attnscope.kernels.errors import EngineUnavailable, JobCancelled

_LOOK_EVERY_S = 0.2


class WorkerGoneError(Exception):
    """The process died with the question."""


@dataclass(frozen=True, slots=True)
class Wait:
    """How long somebody waits for an answer: until a moment, or until they leave."""

    deadline: float
    abandoned: threading.Event | None

    def result(self, future: "Future[Message]") -> Message:
        """What the worker says to the question.

        Raises:
            JobCancelled: Who asked is gone.
            EngineUnavailable: It took longer than the deadline.
            WorkerGoneError: The worker died with the question.
        """
        while (left := self.deadline - monotonic()) > 0:
            with suppress(FutureTimeout):
                return future.result(left if self.abandoned is None else min(left, _LOOK_EVERY_S))
            if self.abandoned is not None and self.abandoned.is_set():
                raise JobCancelled("Nobody waits for this answer any more.")
        raise EngineUnavailable("No answer came in time.", "The server is busy; try again.")


@dataclass(eq=False, kw_only=True)
class Seat:
    """One place for a worker: the process in it changes, the seat stays.

    Attributes:
        is_ready: Whether the process reads messages.
        is_prepared: Whether it has imported what answers need: it answers at once.
    """

    name: str
    device: str
    runs_jobs: bool
    process: WorkerProcess | None = None
    is_ready: bool = False
    is_prepared: bool = False
    false_starts: int = 0
    job_id: str | None = None
    pace: Pace = field(default_factory=Pace)
    oom_kills_before: int = 0
    asks: dict[str, "Future[Message]"] = field(default_factory=dict)
