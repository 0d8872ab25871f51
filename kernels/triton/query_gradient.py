"""The gradient of the queries: one program a block of queries of a head, over the keys they see.

Names as in `flash_gradients`.
"""

import triton
import triton.language as tl

from attnscope.kernels.triton.bias import bias_of_head, load_bias
from attnscope.kernels.triton.flash_gradients import weights_and_slopes
from attnscope.kernels.triton.key_parts import key_parts, key_runs
from attnscope.kernels.triton.online_softmax import LN_2
from attnscope.kernels.triton.tiles import load_tile


@triton.jit
def add_over_keys(
    b_dq,
    b_q,
    b_dout,
    b_lse,
    b_delta,
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
    BLOCK_KEYS: tl.constexpr,
    BOUNDED_FROM: tl.constexpr,
    BOUNDED_TO: tl.constexpr,
    HAS_PADDING: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    MASKED: tl.constexpr,
):
    """The gradient so far `[R, D]`, and what the tiles from key `first` to `last` add to it.

    A row sees the keys from its `o_from` to its `o_to`, as far as these are bounds.
    """
    o_dim = tl.arange(0, BLOCK_DIM)
    o_value = tl.arange(0, BLOCK_VALUE)
    o_tile = tl.arange(0, BLOCK_KEYS)
    o_apart = o_tile[None, :] - tl.arange(0, b_q.shape[0])[:, None]
    for tile in range(first, last, BLOCK_KEYS):
        start = tl.cast(tile, tl.int64)
        o_keys = tile + o_tile
        m_keys = o_keys < end
        if MASKED and HAS_PADDING:
            p_shown = p_visible + start * visible_key + o_tile * visible_key
            m_keys = m_keys & (tl.load(p_shown, mask=m_keys, other=0) != 0)
        p_tile = p_k + start * k_row + (o_tile * k_row)[None, :] + (o_dim * k_dim)[:, None]
        m_dim = (o_dim < HEAD_DIM)[:, None]
        b_k = load_tile(p_tile, m_keys[None, :], m_dim, MASKED, HEAD_DIM < BLOCK_DIM)
        p_tile = p_v + start * v_row + (o_tile * v_row)[None, :] + (o_value * v_dim)[:, None]
        m_value = (o_value < VALUE_DIM)[:, None]
        b_v = load_tile(p_tile, m_keys[None, :], m_value, MASKED, VALUE_DIM < BLOCK_VALUE)
        b_products = tl.dot(b_q, b_k, input_precision="ieee")
        b_bias = b_products
        if HAS_BIAS:
            b_bias = load_bias(p_bias, tile - first_row, o_apart, query_length, key_length)
        b_weights, b_slopes = weights_and_slopes(
            b_products, b_lse[:, None], b_bias, factor, cap_factor, HAS_SOFTCAP, HAS_BIAS
        )
        if MASKED:
            m_seen = m_keys[None, :]
            if BOUNDED_FROM:
                m_seen = m_seen & (o_keys[None, :] >= o_from[:, None])
            if BOUNDED_TO:
                m_seen = m_seen & (o_keys[None, :] <= o_to[:, None])
            b_weights = tl.where(m_seen, b_weights, 0.0)
        b_dweights = tl.dot(b_dout, b_v, input_precision="ieee")
        b_dscores = b_weights * (b_dweights - b_delta[:, None]) * b_slopes
        b_dq = tl.dot(b_dscores.to(b_k.dtype), tl.trans(b_k), b_dq, input_precision="ieee")
    return b_dq


@triton.jit(
    do_not_specialize=[
        "query_length",
        "key_length",
        "query_offset",
        "before",
        "after",
        "first_keys",
    ]
)
def query_gradient_kernel(
    p_q,
    p_k,
    p_v,
    p_dout,
    p_lse,
    p_delta,
    p_visible,
    p_bounds,
    p_documents,
    p_bias,
    p_dq,
    q_batch,
    q_head,
    q_row,
    q_dim,
    k_batch,
    k_head,
    k_row,
    k_dim,
    v_batch,
    v_head,
    v_row,
    v_dim,
    dout_batch,
    dout_head,
    dout_row,
    dout_dim,
    dq_batch,
    dq_head,
    dq_row,
    visible_batch,
    visible_key,
    scale,
    factor,
    cap_factor,
    query_heads,
    group,
    query_length,
    key_length,
    query_offset,
    before,
    after,
    first_keys,
    HEAD_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_VALUE: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BOUNDED_BEFORE: tl.constexpr,
    BOUNDED_AFTER: tl.constexpr,
    HAS_FIRST_KEYS: tl.constexpr,
    FIRST_KEYS_CAUSAL: tl.constexpr,
    HAS_PADDING: tl.constexpr,
    HAS_DOCUMENTS: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):
    """One block of queries of one head of one sequence."""
    blocks = tl.cdiv(query_length, BLOCK_QUERIES)
    program = tl.program_id(0)
    first_row = (blocks - 1 - program % blocks) * BLOCK_QUERIES
    head = program // blocks % query_heads
    batch = (program // blocks // query_heads).to(tl.int64)
    kv_head = (head // group).to(tl.int64)
    far_row = first_row.to(tl.int64)

    o_block = tl.arange(0, BLOCK_QUERIES)
    o_rows = first_row + o_block
    m_rows = (o_rows < query_length)[:, None]
    o_dim = tl.arange(0, BLOCK_DIM)
    o_value = tl.arange(0, BLOCK_VALUE)
    m_dim = (o_dim < HEAD_DIM)[None, :]
    m_value = (o_value < VALUE_DIM)[None, :]
    p_q += batch * q_batch + head.to(tl.int64) * q_head + far_row * q_row
    p_tile = p_q + (o_block * q_row)[:, None] + (o_dim * q_dim)[None, :]
    b_q = load_tile(p_tile, m_rows, m_dim, True, HEAD_DIM < BLOCK_DIM)
    p_dout += batch * dout_batch + head.to(tl.int64) * dout_head + far_row * dout_row
    p_tile = p_dout + (o_block * dout_row)[:, None] + (o_value * dout_dim)[None, :]
    b_dout = load_tile(p_tile, m_rows, m_value, True, VALUE_DIM < BLOCK_VALUE)
    row = (batch * query_heads + head) * query_length + first_row
    # Rows that do not exist weigh nothing: their denominator is infinite.
    b_lse = tl.load(p_lse + row + o_block, mask=o_rows < query_length, other=float("inf")) / LN_2
    b_delta = tl.load(p_delta + row + o_block, mask=o_rows < query_length, other=0.0)
    p_k += batch * k_batch + kv_head * k_head
    p_v += batch * v_batch + kv_head * v_head

    parts = key_parts(
        p_bounds,
        p_documents,
        batch,
        query_offset + first_row,
        query_offset + tl.minimum(first_row + BLOCK_QUERIES, query_length) - 1,
        key_length,
        before,
        after,
        first_keys,
        BLOCK_KEYS,
        BOUNDED_BEFORE,
        BOUNDED_AFTER,
        FIRST_KEYS_CAUSAL,
        HAS_PADDING,
        HAS_DOCUMENTS,
    )
    first_start, first_end, start, whole_first, whole_last, end = parts
    o_positions = query_offset + o_rows
    o_from, o_to = key_runs(
        p_documents, o_positions, o_rows < query_length, before, after, HAS_DOCUMENTS
    )
    if HAS_BIAS:
        p_bias = bias_of_head(p_bias, head, query_length, key_length)
    BOUNDED_FROM: tl.constexpr = BOUNDED_BEFORE or HAS_DOCUMENTS
    BOUNDED_TO: tl.constexpr = BOUNDED_AFTER or HAS_DOCUMENTS
    b_dq = tl.zeros([BLOCK_QUERIES, BLOCK_DIM], tl.float32)
    # The first keys, the left edge of the band, its middle, its right edge.
    for part in tl.static_range(0 if HAS_FIRST_KEYS else 1 if BOUNDED_FROM else 2, 4):
        if part == 0:
            run_start, run_end, limit = first_start, first_end, first_end
        elif part == 1:
            run_start, run_end, limit = start, tl.minimum(whole_first, end), end
        elif part == 2:
            run_start, run_end, limit = whole_first, whole_last, end
        else:
            run_start, run_end, limit = whole_last, end, end
        b_dq = add_over_keys(
            b_dq,
            b_q,
            b_dout,
            b_lse,
            b_delta,
            p_k,
            p_v,
            p_visible + batch * visible_batch if HAS_PADDING else p_visible,
            p_bias,
            o_from,
            o_positions if part == 0 else o_to,
            run_start,
            run_end,
            limit,
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
            HEAD_DIM,
            VALUE_DIM,
            BLOCK_DIM,
            BLOCK_VALUE,
            BLOCK_KEYS,
            BOUNDED_FROM and part > 0,
            FIRST_KEYS_CAUSAL if part == 0 else BOUNDED_TO,
            HAS_PADDING,
            HAS_SOFTCAP,
            HAS_BIAS,
            part != 2,
        )
    p_dq += batch * dq_batch + head.to(tl.int64) * dq_head + far_row * dq_row
    p_tile = p_dq + (o_block * dq_row)[:, None] + o_dim[None, :]
    tl.store(p_tile, (b_dq * scale).to(p_dq.dtype.element_ty), mask=m_rows & m_dim)
