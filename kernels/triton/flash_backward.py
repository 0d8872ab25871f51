"""Flash attention, backward (arXiv 2205.14135 §B.4, 2307.08691 §3.1): two kernels, no atomics.

One kernel gives the gradient of the queries, a block of them a program; the other those of the keys
and values, a block of them a program, summed over the query heads that share them. Each weight is
computed anew from the log-sum-exp. The order of every sum is fixed: the same gradients each time.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim, R distances; V value dim.
"""

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from attnscope.kernels.triton.configurations import (
    FlashConfig,
    block_width,
    capability_of,
    key_gradient_config,
    query_gradient_config,
)
from attnscope.kernels.triton.flash_rule import FlashRule, key_bounds
from attnscope.kernels.triton.key_gradient import key_gradient_kernel
from attnscope.kernels.triton.online_softmax import score_factors
from attnscope.kernels.triton.query_gradient import query_gradient_kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradients:
    """What the backward pass gives.

    Attributes:
        dq_BHQD: As q, in its dtype.
        dk_BGKD: As k.
        dv_BGKD: As v.
        dsinks_H: As the sinks, or None without sinks.
    """

    dq_BHQD: Tensor
    dk_BGKD: Tensor
    dv_BGKD: Tensor
    dsinks_H: Tensor | None


def flash_backward(
    q_BHQD: Tensor,
    k_BGKD: Tensor,
    v_BGKD: Tensor,
    sinks_H: Tensor | None,
    visible_keys_BK: Tensor | None,
    documents_N2: Tensor | None,
    distance_bias_HR: Tensor | None,
    out_BHQD: Tensor,
    lse_BHQ: Tensor,
    dout_BHQD: Tensor,
    dlse_BHQ: Tensor,
    rule: FlashRule,
    *,
    query_config: FlashConfig | None = None,
    key_config: FlashConfig | None = None,
) -> Gradients:
    """Gradients of `launch_flash_forward`, whose inputs and outputs these are.

    Args:
        q_BHQD: Its input, as the next six.
        k_BGKD: See above.
        v_BGKD: See above.
        sinks_H: See above.
        visible_keys_BK: See above.
        documents_N2: See above.
        distance_bias_HR: See above.
        out_BHQD: Its output.
        lse_BHQ: Its log-sum-exp.
        dout_BHQD: Gradient of the output.
        dlse_BHQ: Gradient of the log-sum-exp.
        rule: Its rule.
        query_config: How to cut for the queries' gradient; by the table when None.
        key_config: The same for the keys and values.
    """
    wider = max(q_BHQD.shape[3], v_BGKD.shape[3])
    chosen_for = wider, q_BHQD.dtype, capability_of(q_BHQD.device)
    query_config = query_config or query_gradient_config(*chosen_for)
    key_config = key_config or key_gradient_config(*chosen_for)
    # What every score of a row loses: the weighted mean of its weights' gradients.
    delta_BHQ = (out_BHQD.float() * dout_BHQD.float()).sum(-1) - dlse_BHQ
    dq_BHQD, dk_BGKD, dv_BGKD = (gradient_like(tensor) for tensor in (q_BHQD, k_BGKD, v_BGKD))
    seen = visible_keys_BK
    tensors = (
        q_BHQD,
        k_BGKD,
        v_BGKD,
        dout_BHQD,
        lse_BHQ,
        delta_BHQ,
        seen,
        None if seen is None else key_bounds(seen),
        documents_N2,
        None if distance_bias_HR is None else distance_bias_HR.contiguous(),
    )
    strides = (
        *q_BHQD.stride(),
        *k_BGKD.stride(),
        *v_BGKD.stride(),
        *dout_BHQD.stride(),
    )
    batch, heads, queries, _ = q_BHQD.shape
    kv_heads, keys = k_BGKD.shape[1:3]
    numbers = (
        *((0, 0) if seen is None else seen.stride()),
        rule.scale,
        *score_factors(rule.scale, rule.softcap),
        heads,
        heads // kv_heads,
        queries,
        keys,
        rule.query_offset,
        rule.before,
        rule.after,
        rule.first_keys,
    )
    head_dim, value_dim = q_BHQD.shape[3], v_BGKD.shape[3]
    constants = {
        "HEAD_DIM": head_dim,
        "VALUE_DIM": value_dim,
        "BLOCK_DIM": block_width(head_dim),
        "BLOCK_VALUE": block_width(value_dim),
        "BOUNDED_BEFORE": rule.bounded_before,
        "BOUNDED_AFTER": rule.bounded_after,
        "HAS_FIRST_KEYS": rule.first_keys > 0,
        "FIRST_KEYS_CAUSAL": rule.first_keys_causal,
        "HAS_PADDING": seen is not None,
        "HAS_DOCUMENTS": documents_N2 is not None,
        "HAS_SOFTCAP": rule.softcap is not None,
        "HAS_BIAS": distance_bias_HR is not None,
    }
    query_kernel: Any = query_gradient_kernel
    key_kernel: Any = key_gradient_kernel
    with torch.cuda.device_of(q_BHQD):
        query_kernel[(batch * heads * triton.cdiv(queries, query_config.block_queries),)](
            *tensors,
            dq_BHQD,
            *strides,
            *dq_BHQD.stride()[:3],
            *numbers,
            **constants,
            **_cut(query_config),
        )
        key_kernel[(batch * kv_heads * triton.cdiv(keys, key_config.block_keys),)](
            *tensors,
            dk_BGKD,
            dv_BGKD,
            *strides,
            *dk_BGKD.stride()[:3],
            *dv_BGKD.stride()[:3],
            *numbers,
            **constants,
            **_cut(key_config),
        )
    dsinks_H = None if sinks_H is None else _sink_gradient(sinks_H, lse_BHQ, delta_BHQ)
    return Gradients(dq_BHQD=dq_BHQD, dk_BGKD=dk_BGKD, dv_BGKD=dv_BGKD, dsinks_H=dsinks_H)


def gradient_like(tensor_BHQD: Tensor) -> Tensor:
    """Room for a gradient, laid out `[B, Q, H, D]` in memory as models' projections are."""
    batch, heads, length, width = tensor_BHQD.shape
    return tensor_BHQD.new_empty(batch, length, heads, width).transpose(1, 2)


def _sink_gradient(sinks_H: Tensor, lse_BHQ: Tensor, delta_BHQ: Tensor) -> Tensor:
    """A sink is a key whose value is 0: only what every score of a row loses reaches it."""
    weights_BHQ = (sinks_H.float()[:, None] - lse_BHQ).exp()
    # No sink and nothing seen: −inf − (−inf) is not a number.
    weights_BHQ = weights_BHQ.masked_fill(lse_BHQ == -torch.inf, 0.0)
    return -(weights_BHQ * delta_BHQ).sum((0, 2)).to(sinks_H.dtype)


def _cut(config: FlashConfig) -> dict[str, int]:
    return {
        "BLOCK_QUERIES": config.block_queries,
        "BLOCK_KEYS": config.block_keys,
        "num_warps": config.num_warps,
        "num_stages": config.num_stages,
    }
