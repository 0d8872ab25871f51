"""Long work that a page asks for and takes up again after a reload; nothing here is drawn."""

from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any, Protocol

from attnscope.app.components.capture_head import ended_badly
from attnscope.app.jobs.access import engine
from attnscope.app.page_session import Notice
from attnscope.kernels.errors import AttnscopeError

Answer = Mapping[str, Any]

MOMENT_S = 1.5
"""How long the page waits before it shows the progress of a job instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A job that finds something out, and what it found.

    Attributes:
        asked: Its arguments.
        job: Its id; None once it is over.
        found: Its result; None before, and where it failed.
    """

    asked: Mapping[str, Any]
    job: str | None = None
    found: Mapping[str, Any] | None = None


class Working(Protocol):
    """A session that keeps the latest job of each name."""

    @property
    def work(self) -> dict[str, Work]:
        """The latest job of each name: its kind, for most."""
        ...

    @property
    def owner(self) -> str:
        """The name of this browser for the queue."""
        ...

    def tell(self, *notices: Notice) -> None:
        """Replace what the visitor is told."""
        ...


def worked(session: Working, kind: str, asked: dict[str, Any], *, name: str = "") -> Answer | None:
    """The result of a job, which is found or submitted; None while it is under way, and where it failed.

    Of each name, its kind where none is given, there is one job at a time: another question ends it.
    """
    name = name or kind
    known = session.work.get(name)
    if known is None or known.asked != asked:
        if known is not None and known.job is not None:
            engine().cancel(known.job)
        session.work[name] = known = Work(asked=asked, job=_submitted(session, kind, asked))
    if known.job is None or not _is_over_soon(known.job):
        return known.found
    found = None
    try:
        found = engine().result(known.job)
    except AttnscopeError as error:
        session.tell(ended_badly(engine().status(known.job), error))
    session.work[name] = Work(asked=asked, found=found)
    return found


def _submitted(session: Working, kind: str, asked: dict[str, Any]) -> str | None:
    try:
        under_way = engine().under_way(kind, asked, owner=session.owner)
        return under_way or engine().submit(kind, asked, owner=session.owner)
    except AttnscopeError as error:
        session.tell(Notice.of(error))
    return None


def _is_over_soon(job: str) -> bool:
    patience = monotonic() + MOMENT_S
    while not (over := engine().status(job).is_over) and monotonic() < patience:
        sleep(0.02)
    return over
