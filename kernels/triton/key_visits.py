"""What the flash kernel does to a run of keys: the online softmax, a tile at a time.

R rows (queries of the block), C keys of a tile; p_ pointers, b_ blocks, o_ offsets, m_ masks.
"""

import triton
import triton.language as tl

from attnscope.kernels.triton.bias import load_bias
from attnscope.kernels.triton.online_softmax import LN_2, tanh, weigh
from attnscope.kernels.triton.tiles import load_columns, load_columns_transposed


@triton.jit
def visit_keys(
    b_out,
    b_out_rest,
    b_total,
    b_highest,
    b_q,
    b_q_rest,
    p_k,
    p_v,
    p_visible,
    p_bias,
    o_from,
    o_to,
    first,
    last,
    end,
    k_row,
    k_dim,
    v_row,
    v_dim,
    visible_key,
    factor,
    cap_factor,
    first_row,
    query_length,
    key_length,
    HEAD_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_VALUE: tl.constexpr,
    REST_DIM: tl.constexpr,
    REST_VALUE: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BOUNDED_FROM: tl.constexpr,
    BOUNDED_TO: tl.constexpr,
    HAS_PADDING: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    MASKED: tl.constexpr,
):
    """The online softmax over the tiles from key `first` to `last`; only if MASKED, by the rule.

    A row sees the keys from its `o_from` to its `o_to`, as far as these are bounds.
    Keys from `end` on are never read: they may not have been written, and 0 · NaN is NaN.
    """
    o_tile = tl.arange(0, BLOCK_KEYS)
    o_apart = o_tile[None, :] - tl.arange(0, b_q.shape[0])[:, None]
    for tile in range(first, last, BLOCK_KEYS):
        start = tl.cast(tile, tl.int64)
        o_keys = tile + o_tile
        m_keys = o_keys < end
        if MASKED and HAS_PADDING:
            p_shown = p_visible + start * visible_key + o_tile * visible_key
            m_keys = m_keys & (tl.load(p_shown, mask=m_keys, other=0) != 0)
        p_rows = p_k + start * k_row + o_tile * k_row
        b_k = load_columns_transposed(p_rows, m_keys, k_dim, 0, BLOCK_DIM, HEAD_DIM, MASKED)
        b_scores = tl.dot(b_q, b_k, input_precision="ieee")
        if REST_DIM > 0:
            b_k = load_columns_transposed(
                p_rows, m_keys, k_dim, BLOCK_DIM, REST_DIM, HEAD_DIM, MASKED
            )
            b_scores = tl.dot(b_q_rest, b_k, b_scores, input_precision="ieee")
        unit = factor
        if HAS_SOFTCAP:
            b_scores = tanh(b_scores * factor)
            unit = cap_factor
        if HAS_BIAS:
            # In the scores' own unit, of which `weigh` makes powers of 2.
            b_bias = load_bias(p_bias, tile - first_row, o_apart, query_length, key_length)
            b_scores += b_bias * (1 / (unit * LN_2))
        if MASKED:
            m_seen = m_keys[None, :]
            if BOUNDED_FROM:
                m_seen = m_seen & (o_keys[None, :] >= o_from[:, None])
            if BOUNDED_TO:
                m_seen = m_seen & (o_keys[None, :] <= o_to[:, None])
            b_scores = tl.where(m_seen, b_scores, float("-inf"))
        state = weigh(b_total, b_highest, b_scores, unit)
        b_weights, b_shrink, b_total, b_highest = state
        p_rows = p_v + start * v_row + o_tile * v_row
        b_v = load_columns(p_rows, m_keys, v_dim, 0, BLOCK_VALUE, VALUE_DIM, MASKED)
        b_weights = b_weights.to(b_v.dtype)
        b_out = b_out * b_shrink[:, None]
        b_out = tl.dot(b_weights, b_v, b_out, input_precision="ieee")
        if REST_VALUE > 0:
            b_v = load_columns(p_rows, m_keys, v_dim, BLOCK_VALUE, REST_VALUE, VALUE_DIM, MASKED)
            b_out_rest = b_out_rest * b_shrink[:, None]
            b_out_rest = tl.dot(b_weights, b_v, b_out_rest, input_precision="ieee")
    return b_out, b_out_rest, b_total, b_highest
