"""The kernel of `maps_cells`: every pair of a tile, reduced to the parts of cells that the tile holds.

In it R slots of a block of queries, C of a tile of keys, M rows and N columns of the parts of a tile,
W slots of a part; p_ pointers, b_ blocks, o_ offsets, m_ masks.
"""

import triton
import triton.language as tl

from attnscope.kernels.triton.maps_tile import (
    key_places,
    load_lse,
    load_queries,
    places,
    tile_scores,
    tile_seen,
)
from attnscope.kernels.triton.online_softmax import exponential


@triton.jit
def read_pairs(
    b_q,
    b_lse,
    p_k,
    p_norm,
    o_keys,
    m_keys,
    m_seen,
    k_row,
    k_dim,
    factor,
    softcap,
    HEAD_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    WORTH: tl.constexpr,
    HAS_NORM: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    MASK_KEYS: tl.constexpr,
    MASK_PAIRS: tl.constexpr,
):
    """What each pair of a tile is worth, 0 where it is not seen: `[R, C]`."""
    if WORTH == "pair":
        return m_seen.to(tl.float32)
    b_pairs = tile_scores(
        b_q,
        p_k,
        o_keys,
        m_keys,
        k_row,
        k_dim,
        factor,
        softcap,
        HEAD_DIM,
        BLOCK_DIM,
        MASK_KEYS,
        HAS_SOFTCAP,
    )
    if WORTH == "weight":
        b_pairs = exponential(b_pairs - b_lse[:, None])
    if MASK_PAIRS:
        b_pairs = tl.where(m_seen, b_pairs, 0.0)
    if HAS_NORM:
        b_pairs = b_pairs * tl.load(p_norm + o_keys, mask=m_keys, other=0.0)[None, :]
    return b_pairs


@triton.jit
def pool(b_pairs, CELL_ROWS: tl.constexpr, CELL_KEYS: tl.constexpr, MAXIMUM: tl.constexpr):
    """A tile `[R, C]` reduced to the parts of cells that it holds."""
    ROWS: tl.constexpr = b_pairs.shape[0] // CELL_ROWS
    COLUMNS: tl.constexpr = b_pairs.shape[1] // CELL_KEYS
    # Along the keys first: a thread holds many of one row.
    if CELL_KEYS > 1:
        b_RNW = tl.reshape(b_pairs, [b_pairs.shape[0], COLUMNS, CELL_KEYS])
        b_pairs = tl.max(b_RNW, 2) if MAXIMUM else tl.sum(b_RNW, 2)
    if CELL_ROWS > 1:
        b_MWN = tl.reshape(b_pairs, [ROWS, CELL_ROWS, COLUMNS])
        b_pairs = tl.max(b_MWN, 1) if MAXIMUM else tl.sum(b_MWN, 1)
    return b_pairs


@triton.jit(
    do_not_specialize=[
        "rows",
        "columns",
        "first_key",
        "query_offset",
        "before",
        "after",
        "first_keys",
    ]
)
def map_cells_kernel(
    p_q,
    p_k,
    p_lse,
    p_norm,
    p_visible,
    p_row_edges,
    p_column_edges,
    p_runs,
    p_tiles,
    p_which,
    p_masks,
    p_sums,
    p_maxima,
    q_head,
    q_row,
    q_dim,
    k_head,
    k_row,
    k_dim,
    lse_head,
    norm_head,
    factor,
    softcap,
    blocks,
    group,
    rows,
    columns,
    first_key,
    query_offset,
    before,
    after,
    first_keys,
    HEAD_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    CELL_ROWS: tl.constexpr,
    CELL_KEYS: tl.constexpr,
    WORTH: tl.constexpr,
    SUMS: tl.constexpr,
    MAXIMA: tl.constexpr,
    HAS_SLACK: tl.constexpr,
    HAS_PADDING: tl.constexpr,
    HAS_NORM: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    BOUNDED_BEFORE: tl.constexpr,
    BOUNDED_AFTER: tl.constexpr,
    HAS_FIRST_KEYS: tl.constexpr,
    FIRST_KEYS_CAUSAL: tl.constexpr,
    LISTED: tl.constexpr,
):
    """One block of rows of the map of one head; the last block, under a causal rule the longest, first."""
    ROWS: tl.constexpr = BLOCK_QUERIES // CELL_ROWS
    COLUMNS: tl.constexpr = BLOCK_KEYS // CELL_KEYS
    program = tl.program_id(0)
    block = blocks - 1 - program % blocks
    head = (program // blocks).to(tl.int64)
    p_q += head * q_head
    p_k += (head // group) * k_head

    placed = places(p_row_edges, block, rows, CELL_ROWS, BLOCK_QUERIES)
    o_queries, m_queries = placed
    b_q = 0.0
    b_lse = 0.0
    if WORTH != "pair":
        b_q = load_queries(p_q, o_queries, m_queries, q_row, q_dim, HEAD_DIM, BLOCK_DIM)
    if WORTH == "weight":
        b_lse = load_lse(p_lse + head * lse_head, o_queries, m_queries)

    o_rows = block * ROWS + tl.arange(0, ROWS)
    # One long offset for the block, and short ones within it: they are held for every pair of a tile.
    first_part = (head * rows + block * ROWS) * columns
    o_parts = tl.arange(0, ROWS)[:, None] * columns + tl.arange(0, COLUMNS)[None, :]
    p_runs += block * 8
    for part in tl.static_range(2 if LISTED else 0 if HAS_FIRST_KEYS else 1, 4):
        for index in range(tl.load(p_runs + 2 * part), tl.load(p_runs + 2 * part + 1)):
            tile = tl.load(p_tiles + index) if LISTED else index
            o_keys, m_keys = key_places(
                p_column_edges,
                p_visible,
                first_key,
                tile,
                columns,
                CELL_KEYS,
                BLOCK_KEYS,
                HAS_SLACK,
                HAS_PADDING,
            )
            m_seen = m_keys[None, :]
            # The weights of a slot without a query are 0 by its infinite log-sum-exp.
            if part != 2 or WORTH != "weight":
                m_seen = m_seen & m_queries[:, None]
            if part != 2:
                m_seen = m_seen & tile_seen(
                    query_offset + o_queries,
                    o_keys,
                    p_which + index if LISTED else p_which,
                    p_masks,
                    before,
                    after,
                    first_keys,
                    BLOCK_QUERIES,
                    BLOCK_KEYS,
                    BOUNDED_BEFORE,
                    BOUNDED_AFTER,
                    HAS_FIRST_KEYS,
                    FIRST_KEYS_CAUSAL,
                    LISTED,
                )
            b_pairs = read_pairs(
                b_q,
                b_lse,
                p_k,
                p_norm + head * norm_head if HAS_NORM else p_norm,
                o_keys,
                m_keys,
                m_seen,
                k_row,
                k_dim,
                factor,
                softcap,
                HEAD_DIM,
                BLOCK_DIM,
                WORTH,
                HAS_NORM,
                HAS_SOFTCAP,
                HAS_SLACK or HAS_PADDING,
                part != 2 or WORTH != "weight" or HAS_SLACK or HAS_PADDING,
            )
            m_columns = tile * COLUMNS + tl.arange(0, COLUMNS) < columns
            m_parts = (o_rows < rows)[:, None] & m_columns[None, :]
            first = first_part + tile * COLUMNS
            if SUMS:
                tl.store(
                    p_sums + first + o_parts,
                    pool(b_pairs, CELL_ROWS, CELL_KEYS, False),
                    mask=m_parts,
                )
            if MAXIMA:
                if WORTH == "score":
                    b_pairs = tl.where(m_seen, b_pairs, float("-inf"))
                tl.store(
                    p_maxima + first + o_parts,
                    pool(b_pairs, CELL_ROWS, CELL_KEYS, True),
                    mask=m_parts,
                )
