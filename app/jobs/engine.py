"""What the pages and routes know of long work, whichever engine does it.

A job is submitted once and runs somewhere else; its status is a frozen snapshot. A question (`ask`) is short and goes
to a process that holds the captures. Arguments, results and answers are JSON, plus at most one byte string under
`body` in an answer, so that an engine on other machines can stand behind the same interface.
"""

import threading
from dataclasses import dataclass
from typing import Any, Literal, Protocol

State = Literal["queued", "running", "done", "failed", "cancelled"]
SERVER = "server"
"""Owner of what the server starts by itself."""
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """A snapshot of one job.

    Attributes:
        id: Made by the engine; unguessable.
        kind: Key of the work table: `load`, `inspect`, ...
        state: Where it is in its life.
        progress: Share done, 0 to 1.
        step: What it is doing now, in words.
        rate: Units a second over the last seconds, or None while unknown.
        rate_unit: What `rate` counts: `layers`, `bytes`, or `share` for the share of the whole.
        eta_s: Estimated seconds to the end, or None while unknown.
        reason: Why it failed or was cancelled; empty otherwise.
        remedy: What to do about it, where that helps to be set apart.
        reference: Short code that ties the visitor's message to the log; empty when nothing failed.
        queued_ahead: Jobs that will start before this one; 0 once it runs.
        created: Unix time, seconds.
        started: Unix time or None.
        ended: Unix time or None.
    """

    id: str
    kind: str
    state: State
    progress: float
    step: str
    rate: float | None
    rate_unit: str
    eta_s: float | None
    reason: str
    remedy: str
    reference: str
    queued_ahead: int
    created: float
    started: float | None
    ended: float | None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ENDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of a job's history: `number` counts from 1, `at` is Unix time, `text` is fit for a visitor."""

    number: int
    at: float
    text: str


class Engine(Protocol):
    """Runs jobs elsewhere and answers questions about what they left."""

    def submit(self, kind: str, arguments: dict[str, Any], *, owner: str) -> str:
        """Queue a job and return its id.

        Raises:
            QueueFull: The owner already has as many jobs waiting or running as is allowed.
            InvalidCall: No such kind of job.
        """
        ...

    def under_way(self, kind: str, arguments: dict[str, Any], *, owner: str) -> str | None:
        """This owner's job under way with exactly these arguments; None if there is none.

        A reload of the page joins it instead of queueing another. A job of others, the server's own among them, is not
        joined, for it would be cancelled under them; what it captures is found at once by the next.
        """
        ...

    def status(self, job_id: str) -> JobStatus:
        """The job's snapshot; raises JobMissing."""
        ...

    def events(self, job_id: str, after: int = 0) -> list[Event]:
        """The job's events with a number above `after`; raises JobMissing."""
        ...

    def cancel(self, job_id: str) -> None:
        """End the job within a second; nothing happens when it is over already. Raises JobMissing."""
        ...

    def result(self, job_id: str) -> dict[str, Any]:
        """What the job returned.

        Raises:
            JobMissing: Unknown, or not over yet.
            JobFailed: It failed; carries the reason.
            JobCancelled: It was cancelled.
        """
        ...

    def ask(
        self,
        method: str,
        arguments: dict[str, Any],
        *,
        timeout_s: float | None = None,
        abandoned: threading.Event | None = None,
    ) -> dict[str, Any]:
        """A short question to a process that holds the captures; bytes come under `body`.

        Args:
            method: Key of the table of questions.
            arguments: JSON.
            timeout_s: Longest wait, seconds; the engine's own when None.
            abandoned: Once set, the work stops and JobCancelled is raised.

        Raises:
            JobCancelled: It was abandoned.
            EngineUnavailable: No answer in time, or the process was being replaced twice in a row.
            AttnscopeError: What the question itself raised: CaptureMissing, InvalidCall, ...
        """
        ...

    def health(self) -> dict[str, Any]:
        """Whether the workers are up, and how many jobs wait."""
        ...
