"""The scores of one tile of a map, for its kernels to share.

In a kernel R slots of a block of queries, C slots of a tile of keys, D head dim; p_ pointers, b_ blocks,
o_ offsets, m_ masks.
"""

import triton
import triton.language as tl

from attnscope.kernels.triton.online_softmax import tanh
from attnscope.kernels.triton.tiles import load_tile


@triton.jit
def places(p_edges, tile, parts, SLOTS: tl.constexpr, BLOCK: tl.constexpr):
    """The positions in the slots of a tile, and which slots hold one: `[BLOCK]` both.

    A tile holds whole parts of an axis of a map, `SLOTS` places each; see `maps_cut.Axis`.
    """
    o_slots = tl.arange(0, BLOCK)
    o_parts = tile * (BLOCK // SLOTS) + o_slots // SLOTS
    b_start = tl.load(p_edges + o_parts, mask=o_parts < parts, other=0)
    b_end = tl.load(p_edges + o_parts + 1, mask=o_parts < parts, other=0)
    o_positions = b_start + o_slots % SLOTS
    return o_positions, o_positions < b_end


@triton.jit
def key_places(
    p_edges,
    p_visible,
    first_key,
    tile,
    parts,
    SLOTS: tl.constexpr,
    BLOCK: tl.constexpr,
    HAS_SLACK: tl.constexpr,
    HAS_PADDING: tl.constexpr,
):
    """The keys in the slots of a tile, and which slots hold one that is no padding."""
    if HAS_SLACK:
        placed = places(p_edges, tile, parts, SLOTS, BLOCK)
        o_keys, m_keys = placed
    else:
        # Every slot is taken: tiles follow each other, and nothing is loaded to know where.
        o_keys = first_key + tile * BLOCK + tl.arange(0, BLOCK)
        m_keys = o_keys == o_keys
    if HAS_PADDING:
        m_keys = m_keys & (tl.load(p_visible + o_keys, mask=m_keys, other=0) != 0)
    return o_keys, m_keys


@triton.jit
def load_lse(p_lse, o_queries, m_queries):
    """Log-sum-exp, infinite where there is no query or nothing is seen: the weights are 0 there."""
    b_lse = tl.load(p_lse + o_queries, mask=m_queries, other=float("inf"))
    return tl.where(b_lse == float("-inf"), float("inf"), b_lse)


@triton.jit
def load_queries(
    p_q, o_queries, m_queries, q_row, q_dim, HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr
):
    """These queries of a head, 0 where the mask is False: `[R, D]`."""
    o_dim = tl.arange(0, BLOCK_DIM)
    p_tile = p_q + (o_queries.to(tl.int64) * q_row)[:, None] + (o_dim * q_dim)[None, :]
    m_dim = (o_dim < HEAD_DIM)[None, :]
    return load_tile(p_tile, m_queries[:, None], m_dim, True, HEAD_DIM < BLOCK_DIM)


@triton.jit
def tile_scores(
    b_q,
    p_k,
    o_keys,
    m_keys,
    k_row,
    k_dim,
    factor,
    softcap,
    HEAD_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    MASK_KEYS: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
):
    """Scores of these queries and keys, `softcap * tanh(factor * q·k)` or `factor * q·k`: `[R, C]`."""
    o_dim = tl.arange(0, BLOCK_DIM)
    p_tile = p_k + (o_keys.to(tl.int64) * k_row)[None, :] + (o_dim * k_dim)[:, None]
    m_dim = (o_dim < HEAD_DIM)[:, None]
    b_k = load_tile(p_tile, m_keys[None, :], m_dim, MASK_KEYS, HEAD_DIM < BLOCK_DIM)
    b_scores = tl.dot(b_q, b_k, input_precision="ieee") * factor
    if HAS_SOFTCAP:
        b_scores = tanh(b_scores) * softcap
    return b_scores


@triton.jit
def tile_seen(
    o_positions,
    o_keys,
    p_which,
    p_masks,
    before,
    after,
    first_keys,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BOUNDED_BEFORE: tl.constexpr,
    BOUNDED_AFTER: tl.constexpr,
    HAS_FIRST_KEYS: tl.constexpr,
    FIRST_KEYS_CAUSAL: tl.constexpr,
    LISTED: tl.constexpr,
):
    """Which pairs of a divided tile the pattern shows: bool `[R, C]`.

    By the numbers of a `FlashRule` or, of a LISTED tile, by the words of the mask at `p_which`.
    """
    if LISTED:
        p_words = p_masks + tl.load(p_which).to(tl.int64) * BLOCK_QUERIES
        b_words = tl.load(p_words + tl.arange(0, BLOCK_QUERIES))
        o_tile = tl.arange(0, BLOCK_KEYS).to(tl.int64)
        return ((b_words[:, None] >> o_tile[None, :]) & 1) != 0
    b_after = o_keys[None, :] - o_positions[:, None]
    m_seen = b_after == b_after
    if BOUNDED_BEFORE:
        m_seen = m_seen & (b_after >= -before)
    if BOUNDED_AFTER:
        m_seen = m_seen & (b_after <= after)
    if HAS_FIRST_KEYS:
        m_first = (o_keys < first_keys)[None, :]
        if FIRST_KEYS_CAUSAL:
            m_first = m_first & (b_after <= 0)
        m_seen = m_seen | m_first
    return m_seen
