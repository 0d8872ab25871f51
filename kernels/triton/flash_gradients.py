"""What both kernels of the backward pass do to a tile: weights anew, and the rule.

R rows (queries), C keys of a tile; b_ blocks, o_ offsets, m_ masks.
"""

import triton
import triton.language as tl

from attnscope.kernels.triton.online_softmax import tanh


@triton.jit
def weights_and_slopes(b_products, b_lse, factor, cap_factor, HAS_SOFTCAP: tl.constexpr):
    """From q·k: each pair's weight, and how much its score grows with its scaled product.

    Args:
        b_products: q·k, `[R, C]` or `[C, R]`.
        b_lse: The rows' log-sum-exp in powers of 2, shaped to broadcast.
        factor: See `score_factors`.
        cap_factor: The same.
        HAS_SOFTCAP: Whether the scores are capped.
    """
    b_scores = b_products * factor
    b_slopes = tl.full(b_products.shape, 1.0, tl.float32)
    if HAS_SOFTCAP:
        b_tanh = tanh(b_scores)
        b_slopes = 1 - b_tanh * b_tanh
        b_scores = b_tanh * cap_factor
    return tl.exp2(b_scores - b_lse), b_slopes


@triton.jit
def sees(
    o_positions,
    o_keys,
    before,
    after,
    first_keys,
    BOUNDED_BEFORE: tl.constexpr,
    BOUNDED_AFTER: tl.constexpr,
    FIRST_KEYS_CAUSAL: tl.constexpr,
):
    """Whether a query sees a key, for offsets that broadcast; padding aside."""
    m_seen = o_keys < first_keys
    if FIRST_KEYS_CAUSAL:
        m_seen = m_seen & (o_keys <= o_positions)
    m_near = (o_keys >= 0) & (o_positions >= 0)
    if BOUNDED_BEFORE:
        m_near = m_near & (o_keys >= o_positions - before)
    if BOUNDED_AFTER:
        m_near = m_near & (o_keys <= o_positions + after)
    return m_seen | m_near
