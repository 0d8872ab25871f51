"""What stands on the page while a job runs: how far, how fast, how long still, and a way out."""

import html
from collections.abc import Callable

import streamlit as st

from attnscope.app.jobs.engine import JobStatus
from attnscope.profiling.units import count, nbytes, seconds

POLL_S = 0.3


def progress(status: JobStatus, *, on_cancel: Callable[[], None]) -> None:
    """Draw one moment of a job; call again for the next."""
    with st.container(
        key="job_progress", horizontal=True, vertical_alignment="center", gap="small"
    ):
        share = min(max(status.progress, 0.0), 1.0)
        st.html(
            '<div class="pg-job" role="status">'
            f"<div><strong>{html.escape(step(status))}</strong><span>{html.escape(pace(status))}"
            f'</span></div><div class="pg-track" role="progressbar" aria-valuemin="0" '
            f'aria-valuemax="100" aria-valuenow="{round(100 * share)}">'
            f'<i style="width:{100 * share:.1f}%"></i></div></div>'
        )
        st.button("Cancel", key=f"cancel_{status.id}", on_click=on_cancel)


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
