"""What the page Runs shows, as one value: a link reproduces it. And the session that holds it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import quote, unquote

from attnscope.app.page_session import Notice, PageSession
from attnscope.app.state import Key
from attnscope.kernels.errors import InvalidCall
from attnscope.profiling.store import CHOICES, Filters

Whose = Literal["all", "own", "reference"]
WHOSE: tuple[Whose, ...] = ("all", "own", "reference")
MOST_COMPARED = 12

_RUN = re.compile(r"[0-9a-f]{16}")
_NAMES = {"model_title": "model", "device_name": "device"}
_LONGEST_TEXT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsView:
    """What the page shows; equal views look the same.

    Attributes:
        filters: Which runs are listed.
        whose: One's own, those that ship with the project, or both.
        runs: Ids of the runs that are open: one to read, several to compare.
    """

    filters: Filters = field(default_factory=Filters)
    whose: Whose = "all"
    runs: tuple[str, ...] = ()


def encode(view: RunsView) -> dict[str, str]:
    """The view as query parameters; what is as at first is left out."""
    filters = view.filters
    found = {"text": filters.text, "run": ",".join(view.runs)}
    found |= {_name(each): ",".join(map(_quoted, getattr(filters, each))) for each in CHOICES}
    found |= {"from": str(filters.shortest or "")}
    if filters.longest != Filters().longest:
        found["to"] = str(filters.longest)
    if view.whose != "all":
        found["of"] = view.whose
    return {name: value for name, value in found.items() if value}


def parse(query: Mapping[str, str]) -> tuple[RunsView, tuple[str, ...]]:
    """The view of a link, and sentences about what in it cannot be used."""
    told = []
    chosen: dict[str, Any] = {
        each: tuple(unquote(part) for part in query[_name(each)].split(",") if part)
        for each in CHOICES
        if query.get(_name(each))
    }
    bounds = {
        name: query[key] for name, key in (("shortest", "from"), ("longest", "to")) if key in query
    }
    try:
        chosen |= {name: int(value) for name, value in bounds.items()}
        filters = Filters(text=query.get("text", "")[:_LONGEST_TEXT], **chosen)
    except (InvalidCall, ValueError):
        filters = Filters()
        told.append("The link's filters cannot be read, so every run is listed.")
    of = query.get("of", "all")
    known: dict[str, Whose] = {each: each for each in WHOSE}
    whose = known.get(of)
    if whose is None:
        told.append(f"Runs of “{of[:40]}” are not known, so all are listed.")
    asked = [run for run in query.get("run", "").split(",") if run]
    runs = tuple(dict.fromkeys(run for run in asked if _RUN.fullmatch(run)))[:MOST_COMPARED]
    if len(runs) < len(set(asked)):
        told.append(
            f"The link names runs that are no ids, or more than {MOST_COMPARED}: those are left out."
        )
    return RunsView(filters=filters, runs=runs, whose=whose or "all"), tuple(told)


class RunsSession(PageSession[RunsView]):
    """One visitor's session on Runs; see `PageSession`."""

    page = "runs"

    def parse(self, query: Mapping[str, str]) -> tuple[RunsView, tuple[str, ...]]:
        """See `PageSession.parse`."""
        return parse(query)

    def encode(self, view: RunsView) -> dict[str, str]:
        """See `PageSession.encode`."""
        return encode(view)

    def follow_url(self) -> bool:
        """See `PageSession.follow_url`; the widgets show what was taken."""
        followed = super().follow_url()
        if followed:
            for key in WIDGETS.values():
                self._state.pop(key, None)
        self._fill()
        return followed

    def choose(self, runs: tuple[str, ...]) -> None:
        """Open these runs."""
        if len(runs) > MOST_COMPARED:
            self.tell(Notice(message=f"{MOST_COMPARED} runs are compared at once: the first are."))
        self.show(replace(self.view, runs=runs[:MOST_COMPARED]))

    def take_filters(self) -> None:
        """Make what the widgets hold the view."""
        held = {name: self._state.get(key) for name, key in WIDGETS.items()}
        chosen = {name: tuple(held[name] or ()) for name in CHOICES}
        text = str(held["text"] or "").replace("\0", "")[:_LONGEST_TEXT]
        filters = replace(self.view.filters, text=text, **chosen)
        self.show(replace(self.view, filters=filters, whose=held["whose"] or "all"))

    def clear(self) -> None:
        """List every run, and open none."""
        for key in WIDGETS.values():
            self._state.pop(key, None)
        self.tell()
        self.show(RunsView())

    def _fill(self) -> None:
        """Widgets that the browser does not hold show the view."""
        view = self.view
        shown = {"text": view.filters.text, "whose": view.whose}
        shown |= {name: list(getattr(view.filters, name)) for name in CHOICES}
        for name, key in WIDGETS.items():
            if key not in self._state:
                self._state[key] = shown[name]


WIDGETS = {
    "text": Key.RUNS_TEXT,
    "whose": Key.RUNS_WHOSE,
    "model_title": Key.RUNS_MODEL,
    "backend": Key.RUNS_BACKEND,
    "phase": Key.RUNS_PHASE,
    "dtype": Key.RUNS_DTYPE,
    "device_name": Key.RUNS_DEVICE,
    "outcome": Key.RUNS_OUTCOME,
}
"""The key of the widget of each filter."""


def _name(filter: str) -> str:
    return _NAMES.get(filter, filter)


def _quoted(value: str) -> str:
    return quote(value, safe=" :/()._+-")
