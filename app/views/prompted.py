"""The session of a page that has a model and prompts of its own, which at first are those that Inspect shows."""

from abc import abstractmethod
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

from attnscope.app.link import Parameter, query_of, values_of
from attnscope.app.page_session import PageSession
from attnscope.app.prompts.links import KeptPrompts
from attnscope.app.state import Key

ViewT = TypeVar("ViewT")


class PromptedSession(PageSession[ViewT]):
    """One visitor's session on such a page.

    Args:
        state: Streamlit's dictionary of the session.
        query: The parameters of the URL.
        owner: The browser's name for the queue; None without its cookie.
        kept: Where prompts too long for a link are kept.
        default: What a link that says nothing shows.

    Attributes:
        kind: The page's view, a dataclass that names prompts by `texts` and `stored`.
        offers: The key of what can run.
    """

    kind: ClassVar[type[Any]]
    offers: ClassVar[Key]

    def __init__(
        self,
        state: MutableMapping[Any, Any],
        query: MutableMapping[str, str],
        owner: str | None = None,
        *,
        kept: KeptPrompts,
        default: ViewT | None = None,
    ) -> None:
        super().__init__(state, query, owner)
        self.kept = kept
        self.default: ViewT = self.kind() if default is None else default

    @property
    @abstractmethod
    def parameters(self) -> Sequence[Parameter]:
        """Those of a link."""

    def parse(self, query: Mapping[str, str]) -> tuple[ViewT, tuple[str, ...]]:
        """See `PageSession.parse`; a link that says nothing shows what Inspect shows."""
        values, notices = values_of(self.parameters, query)
        return (self.kind(**values) if values else self.default), notices

    def encode(self, view: ViewT) -> dict[str, str]:
        """See `PageSession.encode`."""
        return query_of(self.parameters, view, self.kind())

    def show(self, view: ViewT) -> None:
        """See `PageSession.show`; prompts too long for a link are kept under their fingerprint."""
        shown: Any = view
        super().show(replace(shown, **self.kept.for_link(shown.texts, shown.stored)))

    @property
    def offered(self) -> tuple[object, Mapping[str, Any]] | None:
        """What was asked last about what can run, and the answer."""
        return self._state.get(self.offers)

    @offered.setter
    def offered(self, offered: tuple[object, Mapping[str, Any]]) -> None:
        self._state[self.offers] = offered
