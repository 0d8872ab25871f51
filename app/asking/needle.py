"""Runs of needles for the page: asked for, followed, and found again; nothing here is drawn."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from attnscope.app.jobs.access import engine
from attnscope.app.jobs.engine import JobStatus
from attnscope.app.page_session import Notice
from attnscope.app.views.needle import NeedleSession, NeedleView, arguments_of
from attnscope.kernels.errors import AttnscopeError, JobMissing

Told = Mapping[str, Any]


def offered(session: NeedleSession) -> tuple[Told | None, Notice | None]:
    """What can run, before anything is run; or why nobody can say."""
    view = session.view
    asked = {
        "source": view.model,
        "revision": view.revision or None,
        "device": view.device,
        "dtype": view.dtype,
    }
    known = session.offered
    if known is None or known[0] != asked:
        try:
            known = asked, engine().ask("check_offered", asked)
        except AttnscopeError as error:
            return None, Notice.of(error)
        session.offered = known
    return known[1], None


def found(session: NeedleSession) -> list[Told | None]:
    """What was found under each setting; None where nothing was begun."""
    return [_stored(each["run"]) for each in _asked(session)]


def cell(run: str, length: int, depth: float) -> Told:
    """One cell of a run, of which a trial is done."""
    return engine().ask("needle_cell", {"run": run, "length": length, "depth": depth})


def submit(session: NeedleSession) -> None:
    """Ask for the grid of every setting.

    Raises:
        QueueFull: The visitor has too many jobs.
    """
    for arguments in _asked(session):
        job = engine().submit("needle", arguments, owner=session.owner)
        session.jobs = (*session.jobs, job)


def join(session: NeedleSession) -> None:
    """Take up the jobs of the grids that the view names, where they still run; with nothing set, run the demo's.

    Raises:
        PromptRefused: The haystack that a link names is not kept any more.
    """
    asked = _asked(session)
    jobs = (engine().under_way("needle", each, owner=session.owner) for each in asked)
    session.jobs = tuple(job for job in jobs if job is not None)
    is_first = session.view.asked == NeedleView() and _stored(asked[0]["run"]) is None
    if is_first and not session.jobs:
        submit(session)


def follow(session: NeedleSession) -> None:
    """Let go of the jobs that are over, and say how those ended that did not end well."""
    statuses = [engine().status(job) for job in session.jobs]
    over = [status for status in statuses if status.is_over]
    if over:
        session.jobs = tuple(status.id for status in statuses if not status.is_over)
        # A grid that ends well says nothing of the one beside it.
        session.tell(*session.notices, *(told for status in over for told in _ending(status)))


def end(session: NeedleSession) -> None:
    """Cancel the jobs under way."""
    for job in session.jobs:
        engine().cancel(job)
    session.jobs = ()


def devices() -> list[str]:
    """Devices that have a worker."""
    workers = (str(worker["name"]) for worker in engine().health().get("workers", ()))
    named = (name.removeprefix("worker ") for name in workers if name.startswith("worker "))
    return ["cpu", *(device for device in named if device != "auto")]


def _asked(session: NeedleSession) -> list[dict[str, Any]]:
    """The arguments of the job of each setting."""
    haystack = session.haystack
    return [arguments_of(session.view, setting, haystack) for setting in session.view.settings]


def _stored(run: str) -> Told | None:
    with suppress(JobMissing):
        return engine().ask("needle", {"run": run})
    return None


def _ending(status: JobStatus) -> tuple[Notice, ...]:
    if status.state == "cancelled":
        return (Notice(kind="told", message="Cancelled; finished trials are kept. Run goes on."),)
    if status.state == "failed":
        kind = "failed" if status.reference else "refused"
        told = {"message": status.reason, "remedy": status.remedy, "reference": status.reference}
        return (Notice(kind=kind, **told),)
    return ()
