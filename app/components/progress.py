"""What stands on the page while a job runs: how far, how fast, how long still, and a way out.

The browser asks the job's route, so that following a job costs the page no run of its script; the script runs once
more, when the job is over.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from streamlit.components.v2 import component

from attnscope.app.jobs.engine import JobStatus
from attnscope.app.jobs.words import pace, step

STATIC = Path(__file__).with_name("static")
ENTRY = """
const home = new URL("/attnscope/static/progress.js", window.location.origin);
export default async function (component) {
  try {
    return (await import(home.href)).default(component);
  } catch (error) {
    component.parentElement.textContent = "The progress could not be loaded. Reload the page.";
    throw error;
  }
}
"""


@functools.cache
def _component() -> Callable[..., Any]:
    css = (STATIC / "progress.css").read_text(encoding="utf-8")
    return component("attnscope_progress", css=css, js=ENTRY, isolate_styles=False)


def progress(status: JobStatus) -> None:
    """Follow a job until it is over; then the script runs again.

    Args:
        status: The job as it is now; what is shown until the route's first answer.
    """
    _component()(
        key=f"progress_{status.id}",
        data={
            "job": status.id,
            "share": status.progress,
            "step": step(status),
            "pace": pace(status),
        },
        on_over_change=_nothing,
    )


def _nothing() -> None:
    """A trigger of a component only reruns the script when it has a callback."""
