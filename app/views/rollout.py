"""What the page Rollout shows, as one value in the session and in the URL, and the session that holds it."""

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import urlencode

from attnscope.app.asking.captures import Shown, Watched
from attnscope.app.asking.worked import Work
from attnscope.app.heads import write_heads
from attnscope.app.link import Parameter, natural, query_of, switch, values_of
from attnscope.app.prompts.links import KeptPrompts
from attnscope.app.state import Key, Session
from attnscope.app.views import inspect as views
from attnscope.app.views.inspect import View

Heads = tuple[tuple[int, int], ...]
"""Layer and head of each layer that is read through one head."""

CAPTURED = (
    *("model", "revision", "device", "dtype", "backend", "layer_backends", "chat", "example"),
    *("texts", "stored", "target", "picture", "attention", "sequence", "pinned", "direction"),
    "hide_special",
)
"""What the page has in common with Inspect, and takes over from it at first."""
LEAST_WINDOW, MOST_WINDOW = 8, 128


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutView(View):
    """What the page shows; what it needs of a capture, the token and the direction stand in `View`.

    Attributes:
        part: The part of a layer's output that attention makes, percent.
        first: The lowest layer that is passed; None for the model's first.
        last: The highest; None for its last.
        heads: Layers that are read through one head; the others through the mean of all.
        by_value: Whether heads are mixed by ‖α·v‖.
        window: Tokens of the network of the flow.
        flow: Whether the flow is found though that takes long.
        whole: Whether the map of all tokens is drawn though that takes long.
    """

    part: int = 50
    first: int | None = None
    last: int | None = None
    heads: Heads = ()
    by_value: bool = False
    window: int = 32
    flow: bool = False
    whole: bool = False

    def inspected(self, layer: int, head: int, *, pinned: int) -> str:
        """The address of Inspect at a head with a token pinned there, with this model and prompt."""
        taken = {name: getattr(self, name) for name in CAPTURED if name != "pinned"}
        return f"/?{urlencode(views.encode(View(**taken, layer=layer, head=head, pinned=pinned)))}"


class RolloutSession(Session):
    """One visitor's session on the page Rollout.

    Args:
        state: Streamlit's dictionary of the session.
        query: The parameters of the URL.
        kept: Where prompts too long for a link are kept.
        owner: The browser's name for the queue; None without its cookie.
        default: What Inspect shows, whose model and prompt are taken over at first.
    """

    page = "rollout"

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
        taken = {} if default is None else {name: getattr(default, name) for name in CAPTURED}
        self.default = RolloutView(**taken)

    def parse(self, query: Mapping[str, str]) -> tuple[RolloutView, tuple[str, ...]]:
        """See `PageSession.parse`; without a link, the default."""
        if not query:
            return self.default, ()
        common, notices = views.parse(query)
        values, more = values_of(_PARAMETERS, query)
        found = {name: getattr(common, name) for name in CAPTURED}
        return RolloutView(**found, **values), (*notices, *more)

    def encode(self, view: View) -> dict[str, str]:
        """See `PageSession.encode`."""
        return views.encode(view) | query_of(_PARAMETERS, view, RolloutView())

    @property
    def view(self) -> RolloutView:
        """See `PageSession.view`."""
        view = super().view
        assert isinstance(view, RolloutView)
        return view

    @property
    def shown(self) -> Shown | None:
        """The last good capture."""
        return self._state.get(Key.ROLLOUT_SHOWN)

    @shown.setter
    def shown(self, shown: Shown | None) -> None:
        self._state[Key.ROLLOUT_SHOWN] = shown

    @property
    def watched(self) -> Watched | None:
        """The job that makes the capture."""
        return self._state.get(Key.ROLLOUT_WATCHED)

    @watched.setter
    def watched(self, watched: Watched | None) -> None:
        self._state[Key.ROLLOUT_WATCHED] = watched

    @property
    def work(self) -> dict[str, Work]:
        """The latest job of each kind."""
        return self._state.setdefault(Key.ROLLOUT_WORK, {})

    @property
    def answers(self) -> dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]]:
        """The latest question of each kind, and its answer."""
        return self._state.setdefault(Key.ROLLOUT_ANSWERS, {})

    def look(self, view: View) -> None:
        """See `Session.look`."""
        shown = self.shown
        if shown is not None and shown.view.capture_key == view.capture_key:
            self.shown = replace(shown, view=view)


def _within(least: int, most: int, name: str) -> Parameter:
    def read(text: str) -> int:
        number = natural(text)
        if not least <= number <= most:
            raise ValueError(text)
        return number

    hint = f"a whole number from {least} to {most}"
    return Parameter(name=name, attribute=name, read=read, hint=hint)


def _read_heads(text: str) -> Heads:
    pairs = [part.split(".") for part in text.split(",")]
    heads = {natural(layer): natural(head) for layer, head in pairs}
    return tuple(sorted(heads.items()))


_LAYER = "the number of a layer"
_PARAMETERS = (
    _within(0, 100, "part"),
    Parameter(name="from", attribute="first", read=natural, hint=_LAYER),
    Parameter(name="to", attribute="last", read=natural, hint=_LAYER),
    Parameter(
        name="heads",
        attribute="heads",
        read=_read_heads,
        write=write_heads,
        hint="a head a layer, such as 0.3,2.5",
    ),
    switch("by_value"),
    _within(LEAST_WINDOW, MOST_WINDOW, "window"),
    switch("flow"),
    switch("whole"),
)
_OWN = {each.name for each in fields(RolloutView)} - {each.name for each in fields(View)}
assert {each.attribute for each in _PARAMETERS} == _OWN
