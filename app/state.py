"""The one typed view of the session: every key of `st.session_state` is declared here.

The view a session shows and the page's URL say the same; whichever changes, the other follows.
"""

import secrets
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Literal

import streamlit as st

from attnscope.app.inspections import Shown, Watched
from attnscope.app.prompt_links import KeptPrompts, packed
from attnscope.app.routes.visitor import owner_of
from attnscope.app.view import View, encode, parse
from attnscope.kernels.errors import AttnscopeError

_RECENT = 6


class Key(StrEnum):
    """Every key of `st.session_state`, widgets included."""

    VIEW = "view"
    URL = "url"
    NOTICES = "notices"
    WATCHED = "watched"
    SHOWN = "shown"
    RECENT = "recent"
    COMPARING = "comparing"
    GIVEN_UP = "given_up"
    OWNER = "owner"
    OFFERED = "offered_prompts"
    UPLOAD_REFUSAL = "upload_refusal"
    BACKENDS = "backends"
    DRAFT = "draft_text"
    EXAMPLE = "draft_example"
    UPLOAD = "draft_upload"
    CHOSEN = "draft_chosen"
    CHAT = "draft_chat"
    SOURCE = "draft_source"
    REVISION = "draft_revision"
    DEVICE = "draft_device"
    DTYPE = "draft_dtype"
    BACKEND = "draft_backend"
    LAYER_BACKENDS = "draft_layer_backends"
    COMPARE = "draft_compare"
    INSPECTOR = "inspector"
    SHARE = "share"
    PROFILE_VIEW = "profile_view"
    PROFILE_URL = "profile_url"
    PROFILE_NOTICES = "profile_notices"
    PROFILE_JOB = "profile_job"
    PROFILE_FOUND = "profile_found"
    PROFILE_PLANNED = "profile_planned"
    PROFILE_DETAIL = "profile_detail"
    PROFILE_OFFERED = "profile_offered"
    PROFILE_SOURCE = "profile_source"
    PROFILE_REVISION = "profile_revision"
    PROFILE_DEVICE = "profile_device"
    PROFILE_BACKENDS = "profile_backends"
    PROFILE_LENGTHS = "profile_lengths"
    PROFILE_BATCHES = "profile_batches"
    PROFILE_PHASES = "profile_phases"
    PROFILE_DTYPES = "profile_dtypes"
    PROFILE_BUDGET = "profile_budget"
    PROFILE_FORCE = "profile_force"
    PROFILE_TRACES = "profile_traces"
    PROFILE_CELL = "profile_cell"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A sentence for the visitor, plain text.

    Attributes:
        message: What happened.
        remedy: What to do about it; empty when the message says so.
        reference: Ties it to the log; empty when nothing failed.
        kind: "refused" for what was asked and cannot be, "failed" for what broke, "told" else.
    """

    message: str
    remedy: str = ""
    reference: str = ""
    kind: Literal["refused", "failed", "told"] = "refused"

    @classmethod
    def of(cls, error: AttnscopeError) -> "Notice":
        """Say an error of our own."""
        return cls(message=error.message, remedy=error.remedy)


class Session:
    """One visitor's session, over Streamlit's own dictionary and query parameters.

    Args:
        state: `st.session_state`.
        query: `st.query_params`.
        kept: Where prompts too long for a link are kept.
        owner: The browser's name for the queue, so that a reload finds its jobs; None without its
            cookie.
    """

    def __init__(
        self,
        state: MutableMapping[Any, Any],
        query: MutableMapping[str, str],
        kept: KeptPrompts,
        owner: str | None = None,
    ) -> None:
        self._state = state
        self._query = query
        self.kept = kept
        self._owner = owner

    @classmethod
    def of_visitor(cls, kept: KeptPrompts) -> "Session":
        """The session whose page is being drawn."""
        return cls(st.session_state, st.query_params, kept, owner_of(st.context.cookies))

    @property
    def view(self) -> View:
        """What the page shows."""
        return self._state.get(Key.VIEW, View())

    @property
    def owner(self) -> str:
        """An unguessable name of this browser, or of this session, for the queue."""
        return self._owner or self._state.setdefault(Key.OWNER, secrets.token_hex(8))

    @property
    def shown(self) -> Shown | None:
        """The last good capture."""
        return self._state.get(Key.SHOWN)

    @shown.setter
    def shown(self, shown: Shown) -> None:
        self._state[Key.SHOWN] = shown
        self.remember(shown)

    @property
    def recent(self) -> tuple[Shown, ...]:
        """Captures that can stand beside the one shown, newest first."""
        return self._state.get(Key.RECENT, ())

    def remember(self, shown: Shown) -> None:
        """Put a capture first among the recent ones."""
        others = (each for each in self.recent if each.capture_id != shown.capture_id)
        self._state[Key.RECENT] = (shown, *others)[:_RECENT]

    def forget(self, capture_id: str) -> None:
        """Leave out a capture that is no longer held."""
        self._state[Key.RECENT] = tuple(
            each for each in self.recent if each.capture_id != capture_id
        )
        if self.shown is not None and self.shown.capture_id == capture_id:
            self._state[Key.SHOWN] = None

    @property
    def watched(self) -> Watched | None:
        """The job the page waits for."""
        return self._state.get(Key.WATCHED)

    @watched.setter
    def watched(self, watched: Watched | None) -> None:
        self._state[Key.WATCHED] = watched

    @property
    def comparing(self) -> Watched | None:
        """The job that makes the capture to compare with."""
        return self._state.get(Key.COMPARING)

    @comparing.setter
    def comparing(self, watched: Watched | None) -> None:
        self._state[Key.COMPARING] = watched

    @property
    def notices(self) -> tuple[Notice, ...]:
        """What the visitor is told above the content."""
        return self._state.get(Key.NOTICES, ())

    def tell(self, *notices: Notice) -> None:
        """Replace what the visitor is told; nothing clears it."""
        self._state[Key.NOTICES] = notices

    def follow_url(self) -> bool:
        """Take the view of the URL when it is not the one last written.

        Returns:
            Whether the view was taken: on the first run, and after a link or the back button.
        """
        found = {name: self._query[name] for name in self._query}
        if self._state.get(Key.URL) == found and Key.VIEW in self._state:
            return False
        view, notices = parse(found)
        self.tell(*(Notice(message=text) for text in notices))
        self._state[Key.GIVEN_UP] = None
        self.show(view)
        return True

    def show(self, view: View) -> None:
        """Make this the page's view, and the URL's."""
        if view.texts and packed(view.texts) is None:
            view = replace(view, stored=self.kept.keep(view.texts), texts=())
        self._state[Key.VIEW] = view
        self.look(view)
        parameters = encode(view)
        if {name: self._query[name] for name in self._query} != parameters:
            rewrite(self._query, parameters)
        self._state[Key.URL] = parameters

    def look(self, view: View) -> None:
        """Remember how the capture shown is looked at, where the view is of it: what fails later comes back to that."""
        if self.shown is not None and self.shown.view.capture_key == view.capture_key:
            self._state[Key.SHOWN] = replace(self.shown, view=view)

    def give_up(self, view: View, notice: Notice) -> None:
        """Go back to the last good capture, if there is one, after `view` could not be had."""
        self.tell(notice)
        self._state[Key.GIVEN_UP] = view.capture_key
        if self.shown is not None:
            self.show(self.shown.view)

    def try_again(self) -> None:
        """Ask once more for what failed."""
        self._state[Key.GIVEN_UP] = None
        self.tell()

    @property
    def has_given_up(self) -> bool:
        """Whether the view's capture was asked for and could not be had."""
        return self._state.get(Key.GIVEN_UP) == self.view.capture_key

    def draft(self, key: Key, default: Any = None) -> Any:
        """What a widget holds."""
        return self._state.get(key, default)

    def set_draft(self, drafts: Mapping[Key, Any]) -> None:
        """Fill widgets that are not yet drawn in this run."""
        for key, value in drafts.items():
            self._state[key] = value


def visitor() -> tuple[MutableMapping[Any, Any], MutableMapping[str, str], str]:
    """The session's dictionary, the URL's parameters, and the name of this browser for the queue."""
    owner = owner_of(st.context.cookies)
    state = st.session_state
    return state, st.query_params, owner or state.setdefault(Key.OWNER, secrets.token_hex(8))


def rewrite(query: MutableMapping[str, str], parameters: dict[str, str]) -> None:
    """Make these the URL's parameters."""
    from_dict = getattr(query, "from_dict", None)
    if from_dict is not None:
        # One message to the browser, so one step of its history.
        from_dict(parameters)
        return
    query.clear()
    query.update(parameters)


def new_report(component: str) -> dict[str, Any] | None:
    """What a component reported as its view, once: Streamlit gives it again at each run.

    Args:
        component: The component's key.
    """
    state, seen = st.session_state.get(component) or {}, f"{component}-turn"
    report = state.get("view")
    if report is None or report.get("turn") == st.session_state.get(seen):
        return None
    st.session_state[seen] = report.get("turn")
    return {name: value for name, value in report.items() if name != "turn"}
