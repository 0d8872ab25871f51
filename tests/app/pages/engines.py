"""An engine that a page test steers by hand."""

from dataclasses import dataclass, field, replace
from threading import Event
from typing import Any

from attnscope.app.jobs.engine import Event as JobEvent
from attnscope.app.jobs.engine import JobStatus
from attnscope.kernels.errors import JobCancelled, JobFailed, JobMissing
from tests.app.statuses import RUNNING


def summary(arguments: dict[str, Any], capture_id: str) -> dict[str, Any]:
    """A capture's summary as the routes give it: 4 layers of 8 heads, a token a word."""
    layer = {
        "name": "attention",
        "backend": arguments["backend"],
        "heads": 8,
        "kv_heads": 2,
        "query_length": 9,
        "key_length": 9,
    }
    return {
        "id": capture_id,
        "model": arguments["source"],
        "source": arguments["source"],
        "revision": arguments["revision"],
        "backend": arguments["backend"],
        "device": "cpu",
        "dtype": "float32",
        "layers": [{"index": index, **layer} for index in range(4)],
        "sequences": [
            {"text": text, "tokens": text.split(), "words": [], "marks": [], "next_tokens": None}
            for text in arguments["texts"]
        ],
        "nbytes": 2_000_000,
        "seconds": 0.1,
        "created": "2026-11-21T02:00:00Z",
    }


@dataclass
class FakeEngine:
    """Jobs end at once unless `hold` is set; `refuse` and `fail` decide how the next ones end."""

    hold: bool = False
    fail: tuple[str, str, str] | None = None
    raises: Exception | None = None
    submitted: list[dict[str, Any]] = field(default_factory=list)
    statuses: dict[str, JobStatus] = field(default_factory=dict)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)

    def submit(self, kind: str, arguments: dict[str, Any], *, owner: str) -> str:
        if self.raises is not None:
            raise self.raises
        self.submitted.append(arguments)
        job_id = f"job{len(self.submitted)}"
        self.statuses[job_id] = replace(RUNNING, id=job_id, kind=kind)
        if not self.hold:
            self.finish(job_id)
        return job_id

    def finish(self, job_id: str) -> None:
        status = self.statuses[job_id]
        if self.fail is not None:
            reason, remedy, reference = self.fail
            self.statuses[job_id] = replace(
                status, state="failed", reason=reason, remedy=remedy, reference=reference
            )
            return
        self.statuses[job_id] = replace(status, state="done", progress=1.0)
        arguments = self.submitted[int(job_id.removeprefix("job")) - 1]
        capture_id = f"capture{job_id.removeprefix('job')}"
        self.results[job_id] = {
            "capture_id": capture_id,
            "summary": summary(arguments, capture_id),
            "model": {"nbytes": 7_000_000, "max_length": 2048, "has_chat_template": False},
        }

    def under_way(self, kind: str, arguments: dict[str, Any], *, owner: str) -> str | None:
        for number, known in enumerate(self.submitted, start=1):
            if known == arguments and not self.statuses[f"job{number}"].is_over:
                return f"job{number}"
        return None

    def status(self, job_id: str) -> JobStatus:
        if job_id not in self.statuses:
            raise JobMissing(f"No job {job_id}.")
        return self.statuses[job_id]

    def events(self, job_id: str, after: int = 0) -> list[JobEvent]:
        return []

    def cancel(self, job_id: str) -> None:
        if not self.statuses[job_id].is_over:
            self.statuses[job_id] = replace(self.statuses[job_id], state="cancelled")

    def result(self, job_id: str) -> dict[str, Any]:
        status = self.status(job_id)
        if status.state == "failed":
            raise JobFailed(status.reason, status.remedy)
        if status.state == "cancelled":
            raise JobCancelled("The job was cancelled.")
        return self.results[job_id]

    def ask(
        self,
        method: str,
        arguments: dict[str, Any],
        *,
        timeout_s: float | None = None,
        abandoned: Event | None = None,
    ) -> dict[str, Any]:
        assert method == "backends"
        return {
            "backends": [
                {"name": "eager", "title": "Eager", "exact": True, "refusal": ""},
                {"name": "tiled", "title": "Tiled flash", "exact": True, "refusal": ""},
                {
                    "name": "sdpa_cudnn",
                    "title": "SDPA, cuDNN",
                    "exact": True,
                    "refusal": "cuDNN needs a CUDA device; this worker has none.",
                },
            ]
        }

    def health(self) -> dict[str, Any]:
        return {"status": "ok", "workers": [{"name": "worker auto"}, {"name": "reader 1"}]}
