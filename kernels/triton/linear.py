"""Linear attention as an operator of PyTorch: with a gradient, and known to its compiler.

B batch, H query heads, G kv heads, Q queries, K keys, F features, V value dim.
"""

from typing import Any

import torch
from torch import Tensor

from attnscope.kernels.approximate.feature_maps import log_elu_plus_one
from attnscope.kernels.approximate.linear import linear_attention
from attnscope.kernels.triton.linear_forward import linear_forward


def linear(
    q_BHQF: Tensor,
    k_BGKF: Tensor,
    v_BGKV: Tensor,
    *,
    elu: bool,
    causal: bool,
    query_offset: int = 0,
    visible_keys_BK: Tensor | None = None,
) -> Tensor:
    """`linear_forward` with a gradient: that of `linear_attention`, run again in plain PyTorch.

    Args:
        q_BHQF: `[B, H, Q, F]`, queries or their features, float32, float16 or bfloat16.
        k_BGKF: `[B, G, K, F]`, keys or their features.
        v_BGKV: `[B, G, K, V]`.
        elu: Whether φ is elu + 1 of q and k; otherwise they are features, 0 or more.
        causal: Whether a query sees only the keys up to its own position; otherwise all.
        query_offset: Absolute position of the first query.
        visible_keys_BK: bool, False where a key is padding.

    Returns:
        `[B, H, Q, V]`; 0 in a row that sees nothing.
    """
    return linear_operator(q_BHQF, k_BGKF, v_BGKV, visible_keys_BK, elu, causal, query_offset)


@torch.library.custom_op("attnscope::linear", mutates_args=())
def linear_operator(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    visible_keys: Tensor | None,
    elu: bool,
    causal: bool,
    query_offset: int,
) -> Tensor:
    """The output; arguments as `linear`."""
    return linear_forward(
        q,
        k,
        v,
        elu=elu,
        causal=causal,
        query_offset=query_offset,
        visible_keys_BK=visible_keys,
    )


@linear_operator.register_fake
def _fake(q: Tensor, k: Tensor, v: Tensor, *_: object) -> Tensor:
    batch, heads, queries, _features = q.shape
    return v.new_empty(batch, queries, heads, v.shape[3]).transpose(1, 2)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    ctx.save_for_backward(*inputs[:4])
    ctx.numbers = inputs[4:]


def _backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, visible_keys = ctx.saved_tensors
    elu, causal, query_offset = ctx.numbers
    q, k, v = (tensor.detach().requires_grad_() for tensor in tensors)
    with torch.enable_grad():
        out = linear_attention(
            q,
            k,
            v,
            log_elu_plus_one if elu else _log,
            causal=causal,
            query_offset=query_offset,
            visible_keys_BK=visible_keys,
        )
    return *torch.autograd.grad(out, (q, k, v), dout), *[None] * 4


def _log(features: Tensor) -> Tensor:
    """The logarithm of features that are given; one that underflowed to 0 has no gradient."""
    return features.clamp_min(torch.finfo(features.dtype).tiny).log()


linear_operator.register_autograd(_backward, setup_context=_save)
