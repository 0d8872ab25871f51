"""An engine that remembers what it was asked, for the routes and pages."""

import threading
from dataclasses import replace
from typing import Any

from attnscope.app.jobs.engine import Event, JobStatus
from attnscope.kernels.errors import AttnscopeError, JobMissing
from tests.app.statuses import RUNNING


class FakeEngine:
    """Answers every question alike; raises `error` instead where one is given."""

    def __init__(self, error: AttnscopeError | None = None) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.cancelled: list[str] = []
        self.error = error

    def submit(self, kind: str, arguments: dict[str, Any], *, owner: str) -> str:
        return "a" * 32

    def under_way(self, kind: str, arguments: dict[str, Any], *, owner: str) -> str | None:
        return None

    def status(self, job_id: str) -> JobStatus:
        if job_id != "a" * 32:
            raise JobMissing("No such job.")
        return replace(RUNNING, id=job_id)

    def events(self, job_id: str, after: int = 0) -> list[Event]:
        return [Event(number=after + 1, at=1.0, text="Queued.")]

    def cancel(self, job_id: str) -> None:
        self.status(job_id)
        self.cancelled.append(job_id)

    def result(self, job_id: str) -> dict[str, Any]:
        return {"capture_id": "c" * 32}

    def ask(
        self,
        method: str,
        arguments: dict[str, Any],
        *,
        timeout_s: float | None = None,
        abandoned: threading.Event | None = None,
    ) -> dict[str, Any]:
        self.asked.append((method, arguments))
        if self.error is not None:
            raise self.error
        if method in {"summary", "diagnostics"}:
            return {"id": arguments["capture"]}
        encoding = arguments.get("encoding", "u8" if method == "overview" else "f32")
        return {
            "header": {"encoding": encoding, "rows": 2, "cols": 2},
            "body": bytes(range(16)) * 100,
        }

    def health(self) -> dict[str, Any]:
        return {"status": "ok", "workers": [], "queued": 0}
