"""An engine that does the work of a page test in its own process."""

import json
from dataclasses import replace
from typing import Any

from attnscope.app.jobs.answers import ASKS
from attnscope.app.jobs.context import Context
from attnscope.app.jobs.engine import Event, JobStatus
from attnscope.app.jobs.work import WORK
from attnscope.kernels.errors import AttnscopeError, JobCancelled, JobFailed, JobMissing
from tests.app.statuses import RUNNING


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

    def events(self, job_id: str, after: int = 0) -> list[Event]:
        return []

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
