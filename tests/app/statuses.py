"""A job under way, for tests that need its snapshot."""

from attnscope.app.jobs.engine import JobStatus

RUNNING = JobStatus(
    id="j",
    kind="inspect",
    state="running",
    progress=0.4,
    step="Running the prompt",
    rate=12.0,
    rate_unit="layers",
    eta_s=3.0,
    reason="",
    remedy="",
    reference="",
    queued_ahead=0,
    created=0.0,
    started=0.0,
    ended=None,
)
