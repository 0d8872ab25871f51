"""What every page's session does alike: follow the URL, show a view, tell the visitor, fill widgets.

The view a session shows and the page's URL say the same; whichever changes, the other follows. Each
page keeps a view of its own, so that a visitor who comes back finds it as it was left.
"""

import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar

from attnscope.kernels.errors import AttnscopeError

ViewT = TypeVar("ViewT")
_PAGE, _OWNER = "page", "owner"


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


class PageSession(ABC, Generic[ViewT]):
    """One visitor's session on one page, over Streamlit's own dictionary and query parameters.

    Args:
        state: Streamlit's dictionary of the session.
        query: The parameters of the URL.
        owner: The browser's name for the queue, so that a reload finds its jobs; None without its
            cookie.
    """

    page: ClassVar[str]

    def __init__(
        self,
        state: MutableMapping[Any, Any],
        query: MutableMapping[str, str],
        owner: str | None = None,
    ) -> None:
        self._state = state
        self._query = query
        self._owner = owner
        self._view, self._url, self._notices = (
            f"{self.page}_{name}" for name in ("view", "url", "notices")
        )

    @abstractmethod
    def parse(self, query: Mapping[str, str]) -> tuple[ViewT, tuple[str, ...]]:
        """A view from query parameters, and a notice for each that could not be used."""

    @abstractmethod
    def encode(self, view: ViewT) -> dict[str, str]:
        """A view as query parameters."""

    @property
    def view(self) -> ViewT:
        """What the page shows."""
        return self._state[self._view] if self._view in self._state else self.parse({})[0]

    @property
    def owner(self) -> str:
        """An unguessable name of this browser, or of this session, for the queue."""
        return self._owner or self._state.setdefault(_OWNER, secrets.token_hex(8))

    @property
    def notices(self) -> tuple[Notice, ...]:
        """What the visitor is told above the content."""
        return self._state.get(self._notices, ())

    def tell(self, *notices: Notice) -> None:
        """Replace what the visitor is told; nothing clears it."""
        self._state[self._notices] = notices

    def follow_url(self) -> bool:
        """Take the view of the URL when it is not the one last written.

        The navigation drops the query of a page that is left: whoever comes back to a page without
        one finds the view that was there.

        Returns:
            Whether widgets must be filled anew: on the first run, after a link or the back button,
            and on coming back, for Streamlit forgets the widgets of a page that is left.
        """
        found = {name: self._query[name] for name in self._query}
        stayed = self._state.get(_PAGE) == self.page
        self._state[_PAGE] = self.page
        if self._view in self._state:
            if stayed and self._state.get(self._url) == found:
                return False
            if not stayed and not found:
                self.show(self.view)
                return True
        view, notices = self.parse(found)
        self.tell(*(Notice(message=text) for text in notices))
        self.show(view)
        return True

    def keep(self) -> None:
        """Hold on to the view shown, before what a control of it asks is done.

        The browser may not have been told its latest URL yet when it sends what its controls hold, and an
        older one that comes with them is no navigation.
        """
        if self._view in self._state:
            self.show(self.view)

    def show(self, view: ViewT) -> None:
        """Make this the page's view, and the URL's."""
        self._state[self._view] = view
        parameters = self.encode(view)
        if {name: self._query[name] for name in self._query} != parameters:
            _rewrite(self._query, parameters)
        self._state[self._url] = parameters

    def draft(self, key: str, default: Any = None) -> Any:
        """What a widget holds."""
        return self._state.get(key, default)

    def set_draft(self, drafts: Mapping[Any, Any]) -> None:
        """Fill widgets that are not yet drawn in this run."""
        for key, value in drafts.items():
            self._state[key] = value


def _rewrite(query: MutableMapping[str, str], parameters: dict[str, str]) -> None:
    from_dict = getattr(query, "from_dict", None)
    if from_dict is not None:
        # One message to the browser, so one step of its history.
        from_dict(parameters)
        return
    query.clear()
    query.update(parameters)
