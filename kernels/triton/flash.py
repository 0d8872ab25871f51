"""Flash attention as an operator of PyTorch: with a gradient, and known to its compiler.

`torch.compile` does not break at it, and memory trackers see its shapes without running it.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim, N positions, R distances.
"""

from typing import Any

import torch
from torch import Tensor

from attnscope.kernels.call import AttentionCall, AttentionOutput
from attnscope.kernels.errors import UnsupportedCall
from attnscope.kernels.triton.flash_backward import flash_backward, gradient_like
from attnscope.kernels.triton.flash_choice import launch_forward
from attnscope.kernels.triton.flash_rule import FlashRule, documents_of, flash_rule


def flash(
    q_BHQD: Tensor,
    k_BGKD: Tensor,
    v_BGKD: Tensor,
    call: AttentionCall,
    *,
    sinks_H: Tensor | None = None,
    visible_keys_BK: Tensor | None = None,
    distance_bias_HR: Tensor | None = None,
) -> AttentionOutput:
    """`flash_forward` with a gradient: of q, k, v and the sinks, through output and log-sum-exp.

    Args:
        q_BHQD: `[B, H, Q, D]`, float32, float16 or bfloat16, any strides.
        k_BGKD: `[B, G, K, D]`, any strides.
        v_BGKD: `[B, G, K, value_dim]`, any strides.
        call: What the tensors are and which pairs are visible; `scale` above 0.
        sinks_H: One logit a head that joins the denominator; given iff `has_sinks`.
        visible_keys_BK: bool, False where a key is padding; given iff `has_padding`.
        distance_bias_HR: float32 `[H, Q + K − 1]`, see `kernels/distance_bias.py`, without a gradient;
            given iff `has_distance_bias`.

    Raises:
        InvalidCall: The tensors are not those of the call.
        UnsupportedCall: A gradient of the bias by distance is asked for.
    """
    call.check(
        q_BHQD,
        k_BGKD,
        v_BGKD,
        sinks_H=sinks_H,
        visible_keys_BK=visible_keys_BK,
        distance_bias_HR=distance_bias_HR,
    )
    rule = flash_rule(call)
    assert rule is not None, "the backend refuses other patterns"
    documents_N2 = documents_of(call, q_BHQD.device)
    out_BHQD, lse_BHQ = flash_operator(
        q_BHQD,
        k_BGKD,
        v_BGKD,
        sinks_H,
        visible_keys_BK,
        documents_N2,
        distance_bias_HR,
        **rule_arguments(rule),
    )
    return AttentionOutput(out_BHQD=out_BHQD, lse_BHQ=lse_BHQ)


def rule_arguments(rule: FlashRule) -> dict[str, Any]:
    """The rule as the operator takes it: PyTorch's operators take numbers, not our types."""
    return {
        "before": rule.before,
        "after": rule.after,
        "first_keys": rule.first_keys,
        "first_keys_causal": rule.first_keys_causal,
        "query_offset": rule.query_offset,
        "scale": rule.scale,
        "softcap": rule.softcap,
    }


@torch.library.custom_op("attnscope::flash", mutates_args=())
def flash_operator(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sinks: Tensor | None,
    visible_keys: Tensor | None,
    documents: Tensor | None,
    distance_bias: Tensor | None,
    before: int,
    after: int,
    first_keys: int,
    first_keys_causal: bool,
    query_offset: int,
    scale: float,
    softcap: float | None,
) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp; documents as `documents_of` gives them, numbers as a `FlashRule`."""
    rule = _rule(before, after, first_keys, first_keys_causal, query_offset, scale, softcap)
    return launch_forward(q, k, v, sinks, visible_keys, documents, distance_bias, rule)


@torch.library.custom_op("attnscope::flash_backward", mutates_args=())
def flash_backward_operator(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sinks: Tensor | None,
    visible_keys: Tensor | None,
    documents: Tensor | None,
    distance_bias: Tensor | None,
    out: Tensor,
    lse: Tensor,
    dout: Tensor,
    dlse: Tensor,
    before: int,
    after: int,
    first_keys: int,
    first_keys_causal: bool,
    query_offset: int,
    scale: float,
    softcap: float | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and the sinks; the last is empty without sinks."""
    rule = _rule(before, after, first_keys, first_keys_causal, query_offset, scale, softcap)
    inputs = q, k, v, sinks, visible_keys, documents, distance_bias
    found = flash_backward(*inputs, out, lse, dout, dlse, rule)
    dsinks = lse.new_empty(0) if found.dsinks_H is None else found.dsinks_H
    return found.dq_BHQD, found.dk_BGKD, found.dv_BGKD, dsinks


def _rule(
    before: int,
    after: int,
    first_keys: int,
    first_keys_causal: bool,
    query_offset: int,
    scale: float,
    softcap: float | None,
) -> FlashRule:
    return FlashRule(
        before=before,
        after=after,
        first_keys=first_keys,
        first_keys_causal=first_keys_causal,
        query_offset=query_offset,
        scale=scale,
        softcap=softcap,
    )


@flash_operator.register_fake
def _fake(q: Tensor, k: Tensor, v: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    batch, heads, queries, _head_dim = q.shape
    out = q.new_empty(batch, queries, heads, v.shape[3]).transpose(1, 2)
    return out, q.new_empty(batch, heads, queries, dtype=torch.float32)


@flash_backward_operator.register_fake
def _backward_fake(
    q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None, *_: object
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dsinks = q.new_empty(0, dtype=torch.float32) if sinks is None else torch.empty_like(sinks)
    return gradient_like(q), gradient_like(k), gradient_like(v), dsinks


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    if ctx.needs_input_grad[6]:
        raise UnsupportedCall(
            "Triton flash: its kernels give a bias by distance no gradient.",
            "Use sdpa_math, or detach the bias.",
        )
    ctx.save_for_backward(*inputs[:7], *output)
    ctx.numbers = inputs[7:]


def _backward(ctx: Any, dout: Tensor, dlse: Tensor) -> tuple[Tensor | None, ...]:
    *inputs, out, lse = ctx.saved_tensors
    dq, dk, dv, dsinks = flash_backward_operator(*inputs, out, lse, dout, dlse, *ctx.numbers)
    sinks = inputs[3]
    return dq, dk, dv, None if sinks is None else dsinks, *[None] * (3 + len(ctx.numbers))


flash_operator.register_autograd(_backward, setup_context=_save)
