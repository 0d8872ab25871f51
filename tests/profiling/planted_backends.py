"""Backends with one mistake each, which know where they make it: the truth a check of them is held against.

H query heads, Q queries, K keys, D head dim.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from attnscope.kernels.backends.backend import Backend, Cost, Refusal
from attnscope.kernels.call import AttentionCall, AttentionOutput
from attnscope.kernels.patterns.catalogue import pattern
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

    def answer(self) -> Reference:
        """Dense attention in float64."""
        return reference(
            self.q_BHQD,
            self.k_BGKD,
            self.v_BGKD,
            self.call,
            sinks_H=self.sinks_H,
            visible_keys_BK=self.visible_keys_BK,
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
    ) -> AttentionOutput:
        asked = Asked(
            q_BHQD=q_BHQD,
            k_BGKD=k_BGKD,
            v_BGKD=v_BGKD,
            call=call,
            sinks_H=sinks_H,
            visible_keys_BK=visible_keys_BK,
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


WINDOW = 5
FAULTS = (
    Fault(
        id="a query sees the key after its own",
        family="llama",
        answer=seeing(lambda q, k: k <= q + 1),
        query=0,
        words="Query {query} sees key {key}, the one after it",
    ),
    Fault(
        id="a query does not see its own key",
        family="llama",
        answer=seeing(lambda q, k: k < q),
        query=0,
        words="Query {query} does not see key {key}, its own",
    ),
    Fault(
        id="a window is one key too wide",
        family="mistral",
        answer=ruled(pattern=pattern("sliding_window", window=WINDOW + 1)),
        query=WINDOW,
        words=f"Query {{query}} sees key {{key}}, {WINDOW} before it",
    ),
    Fault(
        id="a window is one key too narrow",
        family="mistral",
        answer=ruled(pattern=pattern("sliding_window", window=WINDOW - 1)),
        query=WINDOW - 1,
        words=f"Query {{query}} does not see key {{key}}, {WINDOW - 1} before it",
    ),
    Fault(
        id="a window is one key too wide in one head of one layer",
        family="mistral",
        answer=ruled(pattern=pattern("sliding_window", window=WINDOW + 1)),
        layers=(1,),
        heads=(2,),
        query=WINDOW,
        words=f"Query {WINDOW} sees key 0, {WINDOW} before it",
    ),
    Fault(
        id="a window is two keys too narrow",
        family="mistral",
        answer=ruled(pattern=pattern("sliding_window", window=WINDOW - 2)),
        query=WINDOW - 2,
        words=f"It sees the last {WINDOW - 2} keys",
    ),
    Fault(
        id="a window is left out",
        family="mistral",
        answer=ruled(pattern=pattern("causal")),
        query=WINDOW,
        words="its pattern is left out but for causality",
    ),
    Fault(
        id="the future is seen",
        family="llama",
        answer=ruled(pattern=pattern("full")),
        query=0,
        words="It sees every key",
    ),
    Fault(
        id="heads read the next kv head",
        family="llama",
        answer=grouped(keys=True, values=True),
        query=0,
        words="It reads kv head",
    ),
    Fault(
        id="heads read the keys of the next kv head",
        family="llama",
        answer=grouped(keys=True, values=False),
        query=1,
        words="It reads the keys of kv head",
    ),
    Fault(
        id="heads read the values of the next kv head",
        family="llama",
        answer=grouped(keys=False, values=True),
        query=0,
        words="It reads the values of kv head",
    ),
    Fault(
        id="groups are interleaved",
        family="llama",
        answer=interleaved,
        heads=(1, 2),
        query=0,
        words="It reads kv head",
    ),
    Fault(
        id="scores are not divided by the root of the width",
        family="llama",
        answer=ruled(scale=1.0),
        query=1,
        words="Its scores are scaled by 1,",
    ),
    Fault(
        id="the scale is a hundredth too large, in the second layer",
        family="llama",
        answer=scaled(1.01),
        layers=(1,),
        query=1,
        words="1.01 times the right",
    ),
    Fault(
        id="a softmax to base two of scores made for e",
        family="gpt_oss",
        answer=scaled(0.6931471805599453),
        layers=(1,),
        heads=(0,),
        words="0.6931 times the right",
    ),
    Fault(
        id="scores are not capped",
        family="gemma2",
        answer=ruled(softcap=None),
        query=1,
        words="Its scores are not capped at 2",
    ),
    Fault(
        id="sinks are left out",
        family="gpt_oss",
        answer=without_sinks,
        query=0,
        words="Its sink is left out",
    ),
    Fault(
        id="heads have the sinks of others",
        family="gpt_oss",
        answer=shuffled_sinks,
        query=0,
    ),
    Fault(
        id="padding is seen",
        family="llama",
        answer=without_padding,
        padded=True,
        query=0,
        words="It sees padding",
    ),
    Fault(
        id="a tile is never written",
        family="llama",
        answer=rows(16, 32, lambda out: torch.full_like(out, torch.nan)),
        layers=(1,),
        heads=(2,),
        query=16,
        words="as if never written",
    ),
    Fault(
        id="a tile holds infinity",
        family="gemma2",
        answer=rows(8, 16, lambda out: torch.full_like(out, torch.inf)),
        layers=(0,),
        heads=(3,),
        query=8,
        words="as if never written",
    ),
    Fault(
        id="a tile holds the one before it",
        family="llama",
        answer=rows(16, 24, lambda out: out.roll(8, 2)),
        layers=(0,),
        heads=(1,),
        query=16,
    ),
    Fault(
        id="a head is zero",
        family="gpt_oss",
        answer=rows(0, 99, torch.zeros_like),
        layers=(1,),
        heads=(3,),
        query=0,
        words="all zeros",
    ),
    Fault(
        id="a head is half of what it should be",
        family="mistral",
        answer=rows(0, 99, lambda out: 0.5 * out),
        layers=(0,),
        heads=(1,),
        query=0,
        words="0.5 times what it should be",
    ),
    Fault(
        id="the last keys are skipped",
        family="llama",
        answer=seeing(lambda q, k: (k <= q) & (k < 16)),
        layers=(0,),
        query=16,
        words="Its keys from 16 on are not seen",
    ),
    Fault(
        id="the first keys are skipped",
        family="llama",
        answer=seeing(lambda q, k: (k <= q) & ((k >= 4) | (q < 8))),
        layers=(0,),
        query=8,
        words="Its keys before 4 are not seen",
    ),
    Fault(
        id="one key is hidden from one query",
        family="llama",
        answer=seeing(lambda q, k: (k <= q) & ~((q == 20) & (k == 7))),
        layers=(1,),
        heads=(0,),
        query=20,
        words="Query 20 does not see key 7, 13 before it.",
    ),
    Fault(
        id="one cell is off",
        family="gemma2",
        answer=cell(17, 5),
        layers=(1,),
        heads=(3,),
        query=17,
    ),
)
