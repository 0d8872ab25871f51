"""What the page Rollout shows, as one value in the session and in the URL, and the session that holds it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import urlencode

from attnscope.app.heads import write_heads
from attnscope.app.link import Parameter, natural, switch
from attnscope.app.state import Key
from attnscope.app.views import inspect as views
from attnscope.app.views.captured import CapturedSession
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


class RolloutSession(CapturedSession[RolloutView]):
    """One visitor's session on the page Rollout."""

    page = "rollout"
    kind = RolloutView
    captured = CAPTURED

    @property
    def parameters(self) -> Sequence[Parameter]:
        """See `CapturedSession.parameters`."""
        return _PARAMETERS

    @property
    def answers(self) -> dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]]:
        """The latest question of each kind, and its answer."""
        return self._state.setdefault(Key.ROLLOUT_ANSWERS, {})


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
