"""Backends with one mistake each, which know where they make it: the truth a check of them is held against.

H query heads, Q queries, K keys, D head dim.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from attnscope.kernels.backends.backend import Backend, Cost, Refusal
from attnscope.kernels.call import AttentionCall, AttentionOutput
from attnscope.kernels.patterns.predicate import Predicate
from attnscope.kernels.reference import Reference, reference

LAYERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One attention call, as a fault changes it."""

    q_BHQD: Tensor
    k_BGKD: Tensor
    v_BGKD: Tensor
    call: AttentionCall
    sinks_H: Tensor | None
    visible_keys_BK: Tensor | None
    distance_bias_HR: Tensor | None

    def answer(self) -> Reference:
        """Dense attention in float64."""
        return reference(
            self.q_BHQD,
            self.k_BGKD,
            self.v_BGKD,
            self.call,
            sinks_H=self.sinks_H,
            visible_keys_BK=self.visible_keys_BK,
            distance_bias_HR=self.distance_bias_HR,
        )

    def with_call(self, **changes: object) -> "Asked":
        """The same tensors under another rule."""
        return replace(self, call=replace(self.call, **changes))  # pyright: ignore[reportArgumentType]


Answer = Callable[[Asked], Tensor]
"""Gives the wrong output, float64 `[B, H, Q, D]`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One mistake.

    Attributes:
        id: Names the test.
        family: Of tiny models.
        answer: The output with the mistake in it.
        layers: Where it is made.
        heads: Likewise; None for all.
        padded: Whether a second, shorter prompt is padded on the left.
        query: The first query at which it shows; None where the softmax decides.
        words: What the cause must say, with the query and the key that it names itself; empty where no single rule
            is changed.
    """

    id: str
    family: str
    answer: Answer
    layers: tuple[int, ...] = (0, 1)
    heads: tuple[int, ...] | None = None
    padded: bool = False
    query: int | None = None
    words: str = ""


@dataclass
class Planted(Backend):
    """A backend that is right but for its fault.

    Attributes:
        fault: What it does wrong.
        right: Of each call of the latest run, the right output `[B, H, Q, D]`, float64.
        given: What it gave.
        sizes: Σ wₖ·|vₖ| of each cell.
    """

    name = "planted"
    title = "Planted fault"
    source = "this test"

    fault: Fault
    right: list[Tensor] = field(default_factory=list)
    given: list[Tensor] = field(default_factory=list)
    sizes: list[Tensor] = field(default_factory=list)

    def refuses(self, call: AttentionCall, device: torch.device) -> Refusal | None:
        """Nothing."""
        return None

    def cost(self, call: AttentionCall) -> Cost:
        """Not asked for."""
        return Cost(flops=0, bytes_read=0, bytes_written=0, workspace_bytes=0, formula="none")

    def _attend(
        self,
        q_BHQD: Tensor,
        k_BGKD: Tensor,
        v_BGKD: Tensor,
        call: AttentionCall,
        *,
        sinks_H: Tensor | None,
        visible_keys_BK: Tensor | None,
        distance_bias_HR: Tensor | None,
    ) -> AttentionOutput:
        asked = Asked(
            q_BHQD=q_BHQD,
            k_BGKD=k_BGKD,
            v_BGKD=v_BGKD,
            call=call,
            sinks_H=sinks_H,
            visible_keys_BK=visible_keys_BK,
            distance_bias_HR=distance_bias_HR,
        )
        exact = asked.answer()
        out_BHQD = exact.out_BHQD.clone()
        if len(self.right) % LAYERS in self.fault.layers:
            wrong_BHQD = self.fault.answer(asked)
            heads = (
                list(range(call.query_heads)) if self.fault.heads is None else [*self.fault.heads]
            )
            out_BHQD[:, heads] = wrong_BHQD[:, heads]
        v_BHKD = v_BGKD.double().abs().repeat_interleave(call.group_size, 1)
        self.right.append(exact.out_BHQD)
        self.given.append(out_BHQD.to(q_BHQD.dtype))
        self.sizes.append(exact.weights_BHQK @ v_BHKD)
        return AttentionOutput(out_BHQD=self.given[-1].clone(), lse_BHQ=None)


def seeing(rule: Callable[[Tensor, Tensor], Tensor]) -> Answer:
    """The mask is another."""
    return lambda asked: (
        asked.with_call(pattern=Predicate(function=rule, label="a wrong mask")).answer().out_BHQD
    )


def ruled(**changes: object) -> Answer:
    """The call is another."""
    return lambda asked: asked.with_call(**changes).answer().out_BHQD


def scaled(factor: float) -> Answer:
    """The scale is another."""
    return lambda asked: asked.with_call(scale=factor * asked.call.scale).answer().out_BHQD


def grouped(keys: bool, values: bool) -> Answer:
    """Every head reads the next kv head."""

    def answer(asked: Asked) -> Tensor:
        k_BGKD = asked.k_BGKD.roll(-1, 1) if keys else asked.k_BGKD
        v_BGKD = asked.v_BGKD.roll(-1, 1) if values else asked.v_BGKD
        return replace(asked, k_BGKD=k_BGKD, v_BGKD=v_BGKD).answer().out_BHQD

    return answer


def interleaved(asked: Asked) -> Tensor:
    """Head h reads kv head h mod G."""
    k_BHKD, v_BHKD = (
        each.repeat(1, asked.call.group_size, 1, 1) for each in (asked.k_BGKD, asked.v_BGKD)
    )
    wide = replace(asked, k_BGKD=k_BHKD, v_BGKD=v_BHKD)
    return wide.with_call(kv_heads=asked.call.query_heads).answer().out_BHQD


def without_sinks(asked: Asked) -> Tensor:
    """Nothing joins the denominator."""
    return replace(asked.with_call(has_sinks=False), sinks_H=None).answer().out_BHQD


def shuffled_sinks(asked: Asked) -> Tensor:
    """Every head has the sink of the next."""
    assert asked.sinks_H is not None
    return replace(asked, sinks_H=asked.sinks_H.roll(1)).answer().out_BHQD


def without_bias(asked: Asked) -> Tensor:
    """Scores are q·k alone."""
    return (
        replace(asked.with_call(has_distance_bias=False), distance_bias_HR=None).answer().out_BHQD
    )


def mirrored_bias(asked: Asked) -> Tensor:
    """The distance has the wrong sign."""
    assert asked.distance_bias_HR is not None
    return replace(asked, distance_bias_HR=asked.distance_bias_HR.flip(-1)).answer().out_BHQD


def without_padding(asked: Asked) -> Tensor:
    """Padding is read like tokens."""
    return replace(asked.with_call(has_padding=False), visible_keys_BK=None).answer().out_BHQD


def rows(first: int, last: int, value: Callable[[Tensor], Tensor]) -> Answer:
    """Some queries hold what `value` makes of the right output `[B, H, Q, D]`."""

    def answer(asked: Asked) -> Tensor:
        out_BHQD = asked.answer().out_BHQD
        changed_BHQD = value(out_BHQD)
        out_BHQD[:, :, first:last] = changed_BHQD[:, :, first:last]
        return out_BHQD

    return answer


def cell(query: int, channel: int) -> Answer:
    """One number is off by a twentieth of the largest."""

    def answer(asked: Asked) -> Tensor:
        out_BHQD = asked.answer().out_BHQD
        out_BHQD[:, :, query, channel] += 0.05 * out_BHQD.abs().amax((-1, -2))
        return out_BHQD

    return answer
