"""The session of a page that stands beside Inspect and looks at a capture of its own, of the same model and prompt."""

from abc import abstractmethod
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Generic, TypeVar, cast

from attnscope.app.asking.captures import Shown, Watched
from attnscope.app.asking.worked import Work
from attnscope.app.link import Parameter, query_of, values_of
from attnscope.app.prompts.links import KeptPrompts
from attnscope.app.state import Key, Session
from attnscope.app.views import inspect as views
from attnscope.app.views.inspect import View

ViewT = TypeVar("ViewT", bound=View)


class CapturedSession(Session, Generic[ViewT]):
    """One visitor's session on such a page.

    Args:
        state: Streamlit's dictionary of the session.
        query: The parameters of the URL.
        kept: Where prompts too long for a link are kept.
        owner: The browser's name for the queue; None without its cookie.
        default: What Inspect shows, whose model and prompt are taken over at first.

    Attributes:
        kind: The page's view.
        captured: Names of what it has in common with Inspect's.
    """

    kind: ClassVar[type[View]]
    captured: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        state: MutableMapping[Any, Any],
        query: MutableMapping[str, str],
        kept: KeptPrompts,
        owner: str | None = None,
        *,
        default: View | None = None,
    ) -> None:
        super().__init__(state, query, kept, owner)
        self.default = self._taken(default or View())

    @property
    @abstractmethod
    def parameters(self) -> Sequence[Parameter]:
        """Those of a link that are the page's own."""

    def parse(self, query: Mapping[str, str]) -> tuple[ViewT, tuple[str, ...]]:
        """See `PageSession.parse`; without a link, the default."""
        if not query:
            return self.default, ()
        common, notices = views.parse(query)
        values, more = values_of(self.parameters, query)
        return self._taken(common, **values), (*notices, *more)

    def encode(self, view: View) -> dict[str, str]:
        """See `PageSession.encode`."""
        return views.encode(view) | query_of(self.parameters, view, self.kind())

    @property
    def view(self) -> ViewT:
        """See `PageSession.view`."""
        return cast("ViewT", super().view)

    @property
    def shown(self) -> Shown | None:
        """The last good capture."""
        return self._state.get(self._key("shown"))

    @shown.setter
    def shown(self, shown: Shown | None) -> None:
        self._state[self._key("shown")] = shown

    @property
    def watched(self) -> Watched | None:
        """The job that makes the capture."""
        return self._state.get(self._key("watched"))

    @watched.setter
    def watched(self, watched: Watched | None) -> None:
        self._state[self._key("watched")] = watched

    @property
    def work(self) -> dict[str, Work]:
        """The latest job of each name: its kind, for most."""
        return self._state.setdefault(self._key("work"), {})

    def look(self, view: View) -> None:
        """See `Session.look`."""
        shown = self.shown
        if shown is not None and shown.view.capture_key == view.capture_key:
            self.shown = replace(shown, view=view)

    def _taken(self, view: View, **own: Any) -> ViewT:
        common = {name: getattr(view, name) for name in self.captured}
        return cast("ViewT", self.kind(**common, **own))

    def _key(self, what: str) -> Key:
        return Key(f"{self.page}_{what}")
