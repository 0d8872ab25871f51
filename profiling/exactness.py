"""Whether a backend's attention is right where it is about to be timed: a wrong one has no latency.

Each layer's own q, k, v go through dense attention in float64; the rule is that of measuring: float32
within 1e-5, 16 bits no worse than twice what PyTorch's own attention errs on the same numbers.

B batch, H query heads, G kv heads, Q queries judged, K keys, D head dim.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from attnscope.kernels import registry
from attnscope.kernels.call import AttentionCall
from attnscope.kernels.reference import reference
from attnscope.kernels.scores import visible
from attnscope.models.swapping import LayerCall
from attnscope.profiling.measured import Measured
from attnscope.profiling.record import Exactness

FLOAT32_ERROR = 1e-5
_TIMES_PYTORCHS = 2.0
_SCORES = 2**22
"""Scores of a layer that are judged at a time: a few times 32 MiB in float64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was found.

    Attributes:
        exactness: The error.
        wrong: Why it is wrong, in words; empty when it is right.
    """

    exactness: Exactness
    wrong: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    layer: int
    relative: float
    largest: float
    allowed: float
    rows: int

    @property
    def excess(self) -> float:
        """How far over what is allowed; NaN, which is greater than nothing, counts as infinite."""
        ratio = self.relative / self.allowed if self.allowed else float(self.relative > 0)
        return math.inf if math.isnan(ratio) else ratio


def judged(run: Callable[[Callable[[LayerCall], None]], object]) -> Verdict:
    """The verdict on every attention call of one run.

    Args:
        run: Runs the model, and calls what it is given after every attention call.
    """
    found: list[_Layer] = []
    run(lambda call: found.append(_judge(call)))
    worst = max(found, key=lambda each: each.excess)
    exactness = Exactness(
        relative=_number(worst.relative),
        largest=_number(worst.largest),
        layer=worst.layer,
        rows=worst.rows,
    )
    return Verdict(exactness=exactness, wrong=_words(worst))


def _judge(call: LayerCall) -> _Layer:
    """The first sequence's last queries, which see the most keys."""
    heads, queries = call.q_BHQD.shape[1:3]
    rows = max(1, min(queries, 64, _SCORES // (heads * call.k_BGKD.shape[2])))
    q_BHQD, out_BHQD = (each[:1, :, -rows:] for each in (call.q_BHQD, call.out_BHQD))
    k_BGKD, v_BGKD = call.k_BGKD[:1], call.v_BGKD[:1]
    seen_BK = call.mask.visible_keys_BK
    padding_BK = None if seen_BK is None else seen_BK[:1]
    asked = AttentionCall.of(
        q_BHQD,
        k_BGKD,
        v_BGKD,
        pattern=call.mask.patterns[0],
        scale=call.scale,
        query_offset=call.mask.query_offset + queries - rows,
        softcap=call.softcap,
        has_sinks=call.sinks_H is not None,
        has_padding=padding_BK is not None,
    )
    extras = {"sinks_H": call.sinks_H, "visible_keys_BK": padding_BK}
    exact_BHQD = reference(q_BHQD, k_BGKD, v_BGKD, asked, **extras).out_BHQD
    allowed = FLOAT32_ERROR
    if out_BHQD.element_size() < 4:
        dense = registry.backend(call.backend).rounds_scores or call.softcap is not None
        theirs_BHQD = _pytorchs(q_BHQD, k_BGKD, v_BGKD, asked, **extras, dense=dense)
        allowed = _TIMES_PYTORCHS * _relative(theirs_BHQD, exact_BHQD)
    return _Layer(
        layer=call.layer,
        relative=_relative(out_BHQD, exact_BHQD),
        largest=(out_BHQD.double() - exact_BHQD).abs().max().item(),
        allowed=allowed,
        rows=rows,
    )


def _pytorchs(
    q_BHQD: Tensor,
    k_BGKD: Tensor,
    v_BGKD: Tensor,
    call: AttentionCall,
    *,
    sinks_H: Tensor | None,
    visible_keys_BK: Tensor | None,
    dense: bool,
) -> Tensor:
    """PyTorch's attention in the dtype of its inputs; a sink is one more key, of value 0."""
    k_BHKD, v_BHKD = (each.repeat_interleave(call.group_size, 1) for each in (k_BGKD, v_BGKD))
    queries = range(call.query_offset, call.query_offset + call.query_length)
    padding_B1K = None if visible_keys_BK is None else visible_keys_BK[:, None]
    device = q_BHQD.device
    seen = visible(call.pattern, queries, range(call.key_length), padding_B1K, device=device)
    shape = (call.batch, call.query_heads, *seen.shape[-2:])
    bias_BHQK = torch.zeros(shape, dtype=q_BHQD.dtype, device=device)
    bias_BHQK.masked_fill_(~seen, -torch.inf)
    if sinks_H is not None:
        column = sinks_H.to(bias_BHQK.dtype)[:, None, None].expand(*bias_BHQK.shape[:3], 1)
        bias_BHQK = torch.cat([bias_BHQK, column], -1)
        k_BHKD, v_BHKD = (pad(each, (0, 0, 0, 1)) for each in (k_BHKD, v_BHKD))
    if not dense:
        return scaled_dot_product_attention(
            q_BHQD, k_BHKD, v_BHKD, attn_mask=bias_BHQK, scale=call.scale
        )
    scores_BHQK = (q_BHQD * call.scale) @ k_BHKD.mT
    if call.softcap is not None:
        scores_BHQK = call.softcap * torch.tanh(scores_BHQK / call.softcap)
    weights_BHQK = torch.softmax((scores_BHQK + bias_BHQK).float(), -1)
    return weights_BHQK.to(q_BHQD.dtype) @ v_BHKD


def _relative(out_BHQD: Tensor, exact_BHQD: Tensor) -> float:
    norm = exact_BHQD.norm().item()
    error = (out_BHQD.double() - exact_BHQD).norm().item()
    return error / norm if norm else error


def _number(value: float) -> Measured:
    return (
        Measured(value) if math.isfinite(value) else Measured.missing(f"the output holds {value}")
    )


def _words(worst: _Layer) -> str:
    if worst.excess <= 1:
        return ""
    if not math.isfinite(worst.relative):
        return f"the attention of layer {worst.layer} holds NaN or infinity"
    return (
        f"the attention of layer {worst.layer} errs by {worst.relative:.1e} of its size, "
        f"and {worst.allowed:.1e} is allowed"
    )
