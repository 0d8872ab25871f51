"""Linformer: keys and values projected along the length to a fixed number of rows.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim, R rows they are projected to.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from attnscope.kernels.scores import accumulation_dtype


def linformer(
    q_BHQD: Tensor,
    k_BGKD: Tensor,
    v_BGKD: Tensor,
    projection_KR: Tensor,
    *,
    scale: float,
    visible_keys_BK: Tensor | None = None,
) -> Tensor:
    """softmax(q (E k)ᵀ · scale) (E v) (arXiv 2006.04768 eq. 7), E shared by keys, values and heads.

    Every projected row mixes keys of the whole sequence, so it has no causal form.

    Args:
        q_BHQD: `[B, H, Q, D]`, any strides.
        k_BGKD: `[B, G, K, D]`.
        v_BGKD: `[B, G, K, value_dim]`.
        projection_KR: Eᵀ, as `length_projection` makes it.
        scale: Multiplies the product of a query with a projected key.
        visible_keys_BK: bool, False where a key is padding; it adds nothing to any row.

    Returns:
        `[B, H, Q, value_dim]` in the dtype of `q_BHQD`; 0 where no key is visible.
    """
    k_BGRD, v_BGRD = (
        _project(t_BGKD, projection_KR, visible_keys_BK) for t_BGKD in (k_BGKD, v_BGKD)
    )
    grouped = k_BGKD.shape[1] < q_BHQD.shape[1]
    return scaled_dot_product_attention(q_BHQD, k_BGRD, v_BGRD, scale=scale, enable_gqa=grouped)


def length_projection(key_length: int, rank: int, seed: int) -> Tensor:
    """Eᵀ, of independent normal numbers of variance 1 / rank (arXiv 2006.04768 §3.2, §4).

    The paper's models learn E with their weights; this is the random matrix of its theorems, and
    what learning starts from. A position's row is the same at every length.

    Returns:
        float32 `[key_length, rank]` on the CPU, the same for a seed on every machine.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(key_length, rank, generator=generator).div_(math.sqrt(rank))


def _project(t_BGKD: Tensor, projection_KR: Tensor, visible_keys_BK: Tensor | None) -> Tensor:
    wide_BGKD = t_BGKD.to(accumulation_dtype(t_BGKD.dtype))
    if visible_keys_BK is not None:
        wide_BGKD = wide_BGKD.masked_fill(~visible_keys_BK[:, None, :, None], 0.0)
    return (projection_KR.to(wide_BGKD).mT @ wide_BGKD).to(t_BGKD.dtype)
