"""A job's snapshot in words: what it does, how far it is, how long still."""

from attnscope.app.jobs.engine import JobStatus
from attnscope.profiling.units import count, nbytes, seconds


def step(status: JobStatus) -> str:
    """Say what a job is doing now."""
    if status.state == "queued":
        ahead = status.queued_ahead
        return f"Waiting; {count(ahead)} before this" if ahead else "Starting"
    return status.step or "Starting the worker"


def pace(status: JobStatus) -> str:
    """Say how far a job is, how fast and how long still."""
    parts = [f"{100 * status.progress:.0f} %"] if status.state == "running" else []
    if status.rate and status.rate_unit == "bytes":
        parts.append(f"{nbytes(status.rate)}/s")
    elif status.rate and status.rate_unit != "share":
        parts.append(f"{status.rate:.3g} {status.rate_unit}/s")
    if status.eta_s is not None and status.state == "running":
        parts.append(f"about {seconds(status.eta_s)} left")
    return " · ".join(parts)
