"""The attention calls that stand for a mechanism: its own, and dense attention's over the same tokens.

H query heads, G kv heads, D head dim.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from attnscope.app.mechanisms import Mechanism
from attnscope.kernels.backends.backend import Backend, Refusal
from attnscope.kernels.call import AttentionCall
from attnscope.kernels.patterns.causal import Causal
from attnscope.kernels.patterns.full import Full
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.registry import backend
from attnscope.profiling.mechanism_trials import Heads

if TYPE_CHECKING:
    import torch


DRAWN = Heads(heads=32, head_dim=128, dtype="bfloat16")
"""Of the curves: one layer of Llama 3.1 8B."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A mechanism as it is set on its card."""

    card: Mechanism
    values: Mapping[str, int | str]
    causal: bool = False

    def call(self, length: int, shape: Heads) -> AttentionCall:
        """Its attention over keys of this length."""
        card = self.card
        queries = min(card.query_length or length, length)
        # One query at the end of a cache sees all of it.
        rule = Full() if queries == 1 else card.rule(self.values, length, causal=self.causal)
        return AttentionCall(
            batch=1,
            query_heads=shape.heads,
            kv_heads=shape.heads // card.group_size,
            query_length=queries,
            key_length=length,
            head_dim=shape.head_dim,
            value_dim=shape.head_dim,
            dtype=shape.dtype,
            scale=shape.head_dim**-0.5,
            pattern=rule,
            query_offset=0 if queries == length else length - queries,
        )

    def dense(self, length: int, shape: Heads) -> AttentionCall:
        """Dense attention over the same tokens: causal where the mechanism is, heads of their own."""
        call = self.call(length, shape)
        return replace(call, kv_heads=shape.heads, pattern=dense_rule(call.pattern, length))

    def runner(self, call: AttentionCall, device: "torch.device") -> tuple[Backend, Refusal | None]:
        """The first of its backends that takes the call; else the first, and why it refuses."""
        found = [backend(name) for name in self.card.backends]
        refusals = {one: one.refuses(call, device) for one in found}
        taking = next((one for one in found if refusals[one] is None), found[0])
        return taking, refusals[taking]


def dense_rule(rule: Pattern, length: int) -> Pattern:
    """What a pattern leaves things out of: causal where its first query sees no later key."""
    spans = rule.key_spans(0, 1, length)
    return Causal() if spans and spans[-1][1] <= 1 else Full()


def choice(mechanism: Mechanism, values: Mapping[str, object], *, causal: bool) -> Choice:
    """A choice from what a question or a job holds."""
    known = {control.name for control in mechanism.controls}
    if mechanism.has_text:
        known.add("text")
    taken = {name: cast("int | str", value) for name, value in values.items() if name in known}
    return Choice(card=mechanism, values=taken, causal=causal)
