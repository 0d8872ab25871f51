"""The gradients of the keys and values: one program a block of keys of a kv head.

It visits the queries that see its keys, of every query head that shares them, one head after the
other: no atomics. Names as in `flash_gradients`.
"""

import triton
import triton.language as tl

from attnscope.kernels.triton.bias import bias_of_head, load_bias
from attnscope.kernels.triton.flash_gradients import weights_and_slopes
from attnscope.kernels.triton.online_softmax import LN_2
from attnscope.kernels.triton.tiles import load_tile


@triton.jit
def query_parts(
    p_bounds,
    p_documents,
    batch,
    first_key,
    key_length,
    query_length,
    query_offset,
    before,
    after,
    first_keys,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BOUNDED_BEFORE: tl.constexpr,
    BOUNDED_AFTER: tl.constexpr,
    FIRST_KEYS_CAUSAL: tl.constexpr,
    HAS_PADDING: tl.constexpr,
    HAS_DOCUMENTS: tl.constexpr,
):
    """The rows of the queries that see some key of the block that begins at `first_key`.

    Returns:
        Four rows. `[0]` to `[3]`: all of them; from `[1]` to `[2]` every query sees every key, in
        whole tiles counted from `[0]`. Runs may be empty, and `[1]` may lie past `[3]`.
    """
    last_key = tl.minimum(first_key + BLOCK_KEYS, key_length) - 1
    start = 0
    end = query_length
    whole_start = 0
    whole_end = query_length
    if BOUNDED_AFTER:
        start = tl.maximum(first_key - after - query_offset, 0)
        whole_start = tl.maximum(last_key - after - query_offset, 0)
    if BOUNDED_BEFORE:
        end = tl.minimum(last_key + before + 1 - query_offset, query_length)
        whole_end = tl.minimum(first_key + before + 1 - query_offset, query_length)
    if HAS_DOCUMENTS:
        start = tl.maximum(start, tl.load(p_documents + first_key * 2) - query_offset)
        whole_start = tl.maximum(whole_start, tl.load(p_documents + last_key * 2) - query_offset)
        end = tl.minimum(end, tl.load(p_documents + last_key * 2 + 1) - query_offset)
        whole_end = tl.minimum(whole_end, tl.load(p_documents + first_key * 2 + 1) - query_offset)
    # A block that is cut off, or holds first keys or padding, has no whole tile.
    divided = (first_key + BLOCK_KEYS > key_length) | (first_key < first_keys)
    seen_start = 0
    if FIRST_KEYS_CAUSAL:
        seen_start = tl.maximum(first_key - query_offset, 0)
    start = tl.where(first_key < first_keys, tl.minimum(start, seen_start), start)
    end = tl.where(first_key < first_keys, query_length, end)
    if HAS_PADDING:
        shown_start = tl.load(p_bounds + batch * 3)
        shown_end = tl.load(p_bounds + batch * 3 + 1)
        divided = divided | (tl.load(p_bounds + batch * 3 + 2) != 0)
        divided = divided | (first_key < shown_start) | (last_key >= shown_end)
        end = tl.where((last_key < shown_start) | (first_key >= shown_end), start, end)
    whole_start = tl.maximum(whole_start, start)
    whole_end = tl.where(divided, start, tl.minimum(whole_end, end))
    whole_first = start + tl.cdiv(whole_start - start, BLOCK_QUERIES) * BLOCK_QUERIES
    whole_tiles = tl.maximum(whole_end - whole_first, 0) // BLOCK_QUERIES
    return start, whole_first, whole_first + whole_tiles * BLOCK_QUERIES, end


@triton.jit
def row_runs(
    p_documents,
    o_keys,
    m_keys,
    query_length,
    query_offset,
    before,
    after,
    first_keys,
    HAS_FIRST_KEYS: tl.constexpr,
    FIRST_KEYS_CAUSAL: tl.constexpr,
    HAS_DOCUMENTS: tl.constexpr,
):
    """The rows of the first and the last query that see each key, in its band and its document."""
    o_from = o_keys - after
    o_to = o_keys + before
    if HAS_FIRST_KEYS:
        o_first = o_keys if FIRST_KEYS_CAUSAL else tl.zeros_like(o_keys)
        o_from = tl.where(o_keys < first_keys, o_first, o_from)
        o_to = tl.where(o_keys < first_keys, query_offset + query_length, o_to)
    if HAS_DOCUMENTS:
        p_own = p_documents + o_keys * 2
        o_from = tl.maximum(o_from, tl.load(p_own, mask=m_keys, other=0))
        o_to = tl.minimum(o_to, tl.load(p_own + 1, mask=m_keys, other=0) - 1)
    return o_from - query_offset, o_to - query_offset


@triton.jit
def add_over_queries(
    b_dk,
    b_dv,
    b_k,
    b_v,
    p_q,
    p_dout,
    p_lse,
    p_delta,
    p_bias,
    o_from,
    o_to,
    m_keys,
    first,
    last,
    end,
    q_row,
    q_dim,
    dout_row,
    dout_dim,
    factor,
    cap_factor,
    first_key,
    query_length,
    key_length,
    HEAD_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_VALUE: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BOUNDED_FROM: tl.constexpr,
    BOUNDED_TO: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    MASKED: tl.constexpr,
):
    """The gradients so far, and what the tiles of one head from row `first` to `last` add.

    A key is seen by the rows from its `o_from` to its `o_to`, as far as these are bounds.
    """
    o_dim = tl.arange(0, BLOCK_DIM)
    o_value = tl.arange(0, BLOCK_VALUE)
    o_tile = tl.arange(0, BLOCK_QUERIES)
    o_apart = tl.arange(0, b_k.shape[0])[:, None] - o_tile[None, :]
    for tile in range(first, last, BLOCK_QUERIES):
        start = tl.cast(tile, tl.int64)
        o_rows = tile + o_tile
        m_rows = o_rows < end
        p_tile = p_q + start * q_row + (o_tile * q_row)[None, :] + (o_dim * q_dim)[:, None]
        m_dim = (o_dim < HEAD_DIM)[:, None]
        b_q = load_tile(p_tile, m_rows[None, :], m_dim, MASKED, HEAD_DIM < BLOCK_DIM)
        p_tile = p_dout + start * dout_row
        p_tile = p_tile + (o_tile * dout_row)[:, None] + (o_value * dout_dim)[None, :]
        m_value = (o_value < VALUE_DIM)[None, :]
        b_dout = load_tile(p_tile, m_rows[:, None], m_value, MASKED, VALUE_DIM < BLOCK_VALUE)
        b_lse = tl.load(p_lse + o_rows, mask=m_rows, other=float("inf")) / LN_2
        b_delta = tl.load(p_delta + o_rows, mask=m_rows, other=0.0)
        # Keys by queries: so no tile of weights need be transposed.
        b_products = tl.dot(b_k, b_q, input_precision="ieee")
        b_bias = b_products
        if HAS_BIAS:
            b_bias = load_bias(p_bias, first_key - tile, o_apart, query_length, key_length)
        b_weights, b_slopes = weights_and_slopes(
            b_products, b_lse[None, :], b_bias, factor, cap_factor, HAS_SOFTCAP, HAS_BIAS
        )
        if MASKED:
            m_seen = m_keys[:, None] & m_rows[None, :]
            if BOUNDED_FROM:
                m_seen = m_seen & (o_rows[None, :] >= o_from[:, None])
            if BOUNDED_TO:
                m_seen = m_seen & (o_rows[None, :] <= o_to[:, None])
            b_weights = tl.where(m_seen, b_weights, 0.0)
        b_dv = tl.dot(b_weights.to(b_dout.dtype), b_dout, b_dv, input_precision="ieee")
        b_dweights = tl.dot(b_v, tl.trans(b_dout), input_precision="ieee")
        b_dscores = b_weights * (b_dweights - b_delta[None, :]) * b_slopes
        b_dk = tl.dot(b_dscores.to(b_q.dtype), tl.trans(b_q), b_dk, input_precision="ieee")
    return b_dk, b_dv


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
def key_gradient_kernel(
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
    p_dk,
    p_dv,
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
    dk_batch,
    dk_head,
    dk_row,
    dv_batch,
    dv_head,
    dv_row,
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
    """One block of keys of one kv head of one sequence."""
    blocks = tl.cdiv(key_length, BLOCK_KEYS)
    program = tl.program_id(0)
    # Under a causal rule the first keys are seen by the most queries: they start first.
    first_key = program % blocks * BLOCK_KEYS
    kv_heads = query_heads // group
    kv_head = (program // blocks % kv_heads).to(tl.int64)
    batch = (program // blocks // kv_heads).to(tl.int64)
    far_key = first_key.to(tl.int64)

    o_block = tl.arange(0, BLOCK_KEYS)
    o_keys = first_key + o_block
    m_inside = o_keys < key_length
    m_keys = m_inside
    if HAS_PADDING:
        p_shown = p_visible + batch * visible_batch + far_key * visible_key + o_block * visible_key
        m_keys = m_keys & (tl.load(p_shown, mask=m_inside, other=0) != 0)
    o_dim = tl.arange(0, BLOCK_DIM)
    o_value = tl.arange(0, BLOCK_VALUE)
    m_dim = (o_dim < HEAD_DIM)[None, :]
    m_value = (o_value < VALUE_DIM)[None, :]
    p_k += batch * k_batch + kv_head * k_head + far_key * k_row
    p_tile = p_k + (o_block * k_row)[:, None] + (o_dim * k_dim)[None, :]
    b_k = load_tile(p_tile, m_keys[:, None], m_dim, True, HEAD_DIM < BLOCK_DIM)
    p_v += batch * v_batch + kv_head * v_head + far_key * v_row
    p_tile = p_v + (o_block * v_row)[:, None] + (o_value * v_dim)[None, :]
    b_v = load_tile(p_tile, m_keys[:, None], m_value, True, VALUE_DIM < BLOCK_VALUE)

    parts = query_parts(
        p_bounds,
        p_documents,
        batch,
        first_key,
        key_length,
        query_length,
        query_offset,
        before,
        after,
        first_keys,
        BLOCK_QUERIES,
        BLOCK_KEYS,
        BOUNDED_BEFORE,
        BOUNDED_AFTER,
        FIRST_KEYS_CAUSAL,
        HAS_PADDING,
        HAS_DOCUMENTS,
    )
    start, whole_first, whole_last, end = parts
    o_from, o_to = row_runs(
        p_documents,
        o_keys,
        m_inside,
        query_length,
        query_offset,
        before,
        after,
        first_keys,
        HAS_FIRST_KEYS,
        FIRST_KEYS_CAUSAL,
        HAS_DOCUMENTS,
    )
    b_dk = tl.zeros([BLOCK_KEYS, BLOCK_DIM], tl.float32)
    b_dv = tl.zeros([BLOCK_KEYS, BLOCK_VALUE], tl.float32)
    for member in range(group):
        head = kv_head * group + member
        p_own = p_bias
        if HAS_BIAS:
            p_own = bias_of_head(p_bias, head, query_length, key_length)
        # The left edge of the queries, their middle, their right edge.
        for part in tl.static_range(0, 3):
            if part == 0:
                run_start, run_end = start, tl.minimum(whole_first, end)
            elif part == 1:
                run_start, run_end = whole_first, whole_last
            else:
                run_start, run_end = whole_last, end
            b_dk, b_dv = add_over_queries(
                b_dk,
                b_dv,
                b_k,
                b_v,
                p_q + batch * q_batch + head * q_head,
                p_dout + batch * dout_batch + head * dout_head,
                p_lse + (batch * query_heads + head) * query_length,
                p_delta + (batch * query_heads + head) * query_length,
                p_own,
                o_from,
                o_to,
                m_keys,
                run_start,
                run_end,
                end,
                q_row,
                q_dim,
                dout_row,
                dout_dim,
                factor,
                cap_factor,
                first_key,
                query_length,
                key_length,
                HEAD_DIM,
                VALUE_DIM,
                BLOCK_DIM,
                BLOCK_VALUE,
                BLOCK_QUERIES,
                BOUNDED_AFTER or HAS_DOCUMENTS,
                BOUNDED_BEFORE or HAS_DOCUMENTS,
                HAS_SOFTCAP,
                HAS_BIAS,
                part != 1,
            )
    p_dk += batch * dk_batch + kv_head * dk_head + far_key * dk_row
    p_tile = p_dk + (o_block * dk_row)[:, None] + o_dim[None, :]
    b_dk = (b_dk * scale).to(p_dk.dtype.element_ty)
    tl.store(p_tile, b_dk, mask=m_inside[:, None] & m_dim)
    p_dv += batch * dv_batch + kv_head * dv_head + far_key * dv_row
    p_tile = p_dv + (o_block * dv_row)[:, None] + o_value[None, :]
    tl.store(p_tile, b_dv.to(p_dv.dtype.element_ty), mask=m_inside[:, None] & m_value)
