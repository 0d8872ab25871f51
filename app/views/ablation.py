"""What the page Ablation shows, as one value in the session and in the URL, and the session that holds it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from urllib.parse import urlencode

from attnscope.app.heads import Heads, read_heads, write_heads
from attnscope.app.link import Parameter, choice, plainly, switch
from attnscope.app.views import inspect as views
from attnscope.app.views.captured import CapturedSession
from attnscope.app.views.inspect import View
from attnscope.app.words.ablation import FIRST_RULE, WAYS
from attnscope.kernels.patterns.rule_program import MOST_CHARACTERS

MEASURES = ("loss", "kl")
CAPTURED = (
    *("model", "revision", "device", "dtype", "backend", "layer_backends", "chat", "example"),
    *("texts", "stored", "sequence", "pinned"),
)
"""What the page has in common with Inspect, and takes over from it at first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationView(View):
    """What the page shows; what it needs of a capture stands in `View`.

    Attributes:
        heads: That are ablated together; the one that is missed most where there are none.
        way: One of `WAYS`.
        rule: With "restrict", the pairs that the heads see at most.
        measure: One of `MEASURES`, what the grid shows.
        rise: Nats by which the loss may rise where heads are counted that can go.
        sweep: Whether every head is swept though that takes long.
    """

    heads: Heads = ()
    way: str = "zero"
    rule: str = FIRST_RULE
    measure: str = "loss"
    rise: float = 0.1
    sweep: bool = False

    def inspected(self, layer: int, head: int) -> str:
        """The address of Inspect at a head, with this model and prompt."""
        taken = {name: getattr(self, name) for name in CAPTURED}
        return f"/?{urlencode(views.encode(View(**taken, layer=layer, head=head)))}"


def address_of(inspected: View, layer: int, head: int) -> str:
    """The address of the page at a head, with the model and the prompt that Inspect shows."""
    taken = View(**{name: getattr(inspected, name) for name in CAPTURED})
    return f"/ablation?{urlencode({**views.encode(taken), 'heads': write_heads(((layer, head),))})}"


class AblationSession(CapturedSession[AblationView]):
    """One visitor's session on Ablation."""

    page = "ablation"
    kind = AblationView
    captured = CAPTURED

    @property
    def parameters(self) -> Sequence[Parameter]:
        """See `CapturedSession.parameters`."""
        return _PARAMETERS


def _rule(text: str) -> str:
    if not text.strip() or len(text) > MOST_CHARACTERS or not text.isprintable():
        raise ValueError(text)
    return text


def _rise(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,6})?", text):
        raise ValueError(text)
    return float(text)


_PARAMETERS = (
    Parameter(name="heads", attribute="heads", read=read_heads, write=write_heads),
    choice("way", tuple(WAYS)),
    Parameter(
        name="rule", attribute="rule", read=_rule, hint=f"a rule of {MOST_CHARACTERS} characters"
    ),
    choice("measure", MEASURES),
    Parameter(name="rise", attribute="rise", read=_rise, write=plainly, hint="nats from 0 to 999"),
    switch("sweep"),
)
_OWN = {each.name for each in fields(AblationView)} - {each.name for each in fields(View)}
assert {each.attribute for each in _PARAMETERS} == _OWN
