"""What a worker hands to the function that does a job or answers a question."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, TypeVar

from attnscope.app.settings import Settings
from attnscope.kernels.errors import JobCancelled

T = TypeVar("T")
_REPORT_EVERY_S = 0.1


class WorkerSpentError(Exception):
    """This process is to be replaced, and the job given to the next: raised by work that goes on where it stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Share of the whole done (0 to 1), what is being done, and how many units the whole is."""

    share: float
    step: str
    total: float
    unit: str


class Resources:
    """What a worker keeps from one job to the next: loaded models, captures, answers. Made on first use."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._kept: dict[str, Any] = {}

    def get(self, name: str, make: Callable[[], T]) -> T:
        """The resource of that name, made once however many threads ask."""
        with self._lock:
            if name not in self._kept:
                self._kept[name] = make()
            return self._kept[name]


@dataclass(kw_only=True)
class Context:
    """One job's or one question's view of its worker.

    Attributes:
        settings: As the server was started.
        device: What this worker computes on: `auto`, `cpu`, `cuda:0`.
        resources: Kept by the worker.
        stop: Set when the visitor cancels, or no longer waits for the answer.
        report: Takes progress to the server; does nothing for a question.
        give_way: Called between any two layers or tiles; long work rests there while others wait.
    """

    settings: Settings
    device: str
    resources: Resources
    stop: threading.Event = field(default_factory=threading.Event)
    report: Callable[[Progress], None] = lambda progress: None
    give_way: Callable[[threading.Event], None] = lambda stop: None
    _told: tuple[float, str] = (0.0, "")

    def progress(
        self, share: float, step: str = "", *, total: float = 1.0, unit: str = "share"
    ) -> None:
        """Say how far the work is, between any two layers or tiles; the server hears of it ten times a second at most.

        Args:
            share: Share of the whole job done, 0 to 1.
            step: What is being done, in words; the last one said stays when empty.
            total: How many units the whole job is, for the rate.
            unit: What is counted: `layers`, `bytes`, ...

        Raises:
            JobCancelled: The visitor asked for it; let it pass through.
        """
        self.give_way(self.stop)
        self.check()
        now = monotonic()
        told_at, told_step = self._told
        step = step or told_step
        if step == told_step and now - told_at < _REPORT_EVERY_S and share < 1:
            return
        self._told = (now, step)
        self.report(Progress(share=min(max(share, 0.0), 1.0), step=step, total=total, unit=unit))

    def part(
        self, start: float, end: float, step: str, *, total: float = 1.0, unit: str = "share"
    ) -> Callable[..., None]:
        """A callback `(share, words="")` for one stage, `start` to `end` of the whole; its words follow the step's."""

        def callback(share: float, words: str = "") -> None:
            told = f"{step}: {words}" if words else step
            self.progress(start * (1 - share) + end * share, told, total=total, unit=unit)

        return callback

    def check(self) -> None:
        """Raise JobCancelled when the visitor asked for it."""
        if self.stop.is_set():
            raise JobCancelled("Cancelled.")
