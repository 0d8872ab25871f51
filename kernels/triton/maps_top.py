"""The keys that each query gives most, in one pass over the key tiles.

A program keeps for each query its best keys so far, sorted, and joins them with the best of each tile.
A score and its key are one integer, whose order is that of the scores and, of equal ones, of the keys
from the first on.

H query heads, G kv heads, Q, K positions, D head dim, T keys kept; in a kernel R slots of a block of
queries, C of a tile of keys, p_ pointers, b_ blocks, o_ offsets, m_ masks.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from attnscope.kernels.streaming import Layer
from attnscope.kernels.triton.configurations import (
    FlashConfig,
    block_width,
    capability_of,
    top_config,
)
from attnscope.kernels.triton.maps_plan import NO_RULE, cut_of
from attnscope.kernels.triton.maps_tile import (
    key_places,
    load_queries,
    places,
    tile_scores,
    tile_seen,
)

MOST_KEYS = 16
"""Keys kept at most: as many as the smallest tile holds."""

NOTHING = tl.constexpr(-(2**63))


@triton.jit
def ranked(b_scores, o_keys, m_seen):
    """Scores and keys as integers in their common order; the lowest where not seen: int64 `[R, C]`."""
    b_bits = b_scores.to(tl.int32, bitcast=True)
    # The bits of a float below 0 fall as it rises.
    b_order = tl.where(b_bits < 0, b_bits ^ 0x7FFFFFFF, b_bits).to(tl.int64)
    b_ranked = (b_order << 32) | (0x7FFFFFFF - o_keys)[None, :].to(tl.int64)
    return tl.where(m_seen, b_ranked, NOTHING)


@triton.jit(do_not_specialize=["rows", "columns", "first_key", "query_offset", "before", "after"])
def top_keys_kernel(
    p_q,
    p_k,
    p_visible,
    p_row_edges,
    p_column_edges,
    p_runs,
    p_tiles,
    p_which,
    p_masks,
    p_scores,
    p_keys,
    q_head,
    q_row,
    q_dim,
    k_head,
    k_row,
    k_dim,
    factor,
    softcap,
    blocks,
    group,
    query_length,
    rows,
    columns,
    first_key,
    query_offset,
    before,
    after,
    first_keys,
    count,
    TOP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    ROW_SLOTS: tl.constexpr,
    KEY_SLOTS: tl.constexpr,
    HAS_SLACK: tl.constexpr,
    HAS_PADDING: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    BOUNDED_BEFORE: tl.constexpr,
    BOUNDED_AFTER: tl.constexpr,
    HAS_FIRST_KEYS: tl.constexpr,
    FIRST_KEYS_CAUSAL: tl.constexpr,
    LISTED: tl.constexpr,
):
    """One block of queries of one head; the last block, under a causal rule the longest, first."""
    program = tl.program_id(0)
    block = blocks - 1 - program % blocks
    head = (program // blocks).to(tl.int64)
    p_q += head * q_head
    p_k += (head // group) * k_head
    placed = places(p_row_edges, block, rows, ROW_SLOTS, BLOCK_QUERIES)
    o_queries, m_queries = placed
    b_q = load_queries(p_q, o_queries, m_queries, q_row, q_dim, HEAD_DIM, BLOCK_DIM)
    b_top = tl.full([BLOCK_QUERIES, TOP], NOTHING, tl.int64)
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
                KEY_SLOTS,
                BLOCK_KEYS,
                HAS_SLACK,
                HAS_PADDING,
            )
            b_scores = tile_scores(
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
                HAS_SLACK or HAS_PADDING,
                HAS_SOFTCAP,
            )
            m_seen = m_keys[None, :] & m_queries[:, None]
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
            b_ranked = ranked(b_scores, o_keys, m_seen)
            # Most tiles hold nothing that is better than what was found: they cost a comparison.
            if tl.max((tl.max(b_ranked, 1) > tl.min(b_top, 1)).to(tl.int32)) > 0:
                b_best = tl.topk(b_ranked, TOP)
                b_both = tl.reshape(tl.join(b_top, b_best), [BLOCK_QUERIES, 2 * TOP])
                b_top = tl.topk(b_both, TOP)

    o_top = tl.arange(0, TOP)
    p_out = (head * query_length + o_queries)[:, None] * count + o_top[None, :]
    m_out = m_queries[:, None] & (o_top < count)[None, :]
    b_order = (b_top >> 32).to(tl.int32)
    b_bits = tl.where(b_order < 0, b_order ^ 0x7FFFFFFF, b_order)
    m_found = b_top != NOTHING
    b_scores = tl.where(m_found, b_bits.to(tl.float32, bitcast=True), float("-inf"))
    b_keys = tl.where(m_found, 0x7FFFFFFF - (b_top & 0x7FFFFFFF).to(tl.int32), -1)
    tl.store(p_scores + p_out, b_scores, mask=m_out)
    tl.store(p_keys + p_out, b_keys, mask=m_out)


def top_keys(
    layer: Layer, count: int, *, config: FlashConfig | None = None
) -> tuple[Tensor, Tensor]:
    """The scores, and the keys, that are highest for each query of each head, the highest first.

    Args:
        layer: q and k in float32, float16 or bfloat16, any strides, heads up to 256 wide.
        count: How many, `MOST_KEYS` at most.
        config: How to cut; by `top_config` when None.

    Returns:
        Scores, float32, and keys, int64, both `[H, Q, count]`; −inf and −1 where fewer are seen. Of equal
        scores the first key comes first.

    Raises:
        UnsupportedCall: The pattern has so little structure that its masks would not fit.
    """
    q_HQD, k_GKD = layer.q_HQD, layer.k_GKD
    everything = (torch.tensor([0, layer.query_length]), torch.tensor([0, layer.key_length]))
    config = config or top_config(q_HQD.shape[2], q_HQD.dtype, capability_of(q_HQD.device))
    cut = cut_of(layer, *everything, config)
    rule, device, blocks = cut.visited.rule or NO_RULE, q_HQD.device, len(cut.visited.runs_b42)
    shape = (*q_HQD.shape[:2], count)
    scores_HQT = q_HQD.new_empty(shape, dtype=torch.float32)
    keys_HQT = q_HQD.new_empty(shape, dtype=torch.int32)
    seen_K = layer.visible_keys_K
    edges = (torch.from_numpy(each.edges).to(device) for each in (cut.rows, cut.columns))
    kernel: Any = top_keys_kernel[(blocks * layer.heads,)]
    with torch.cuda.device_of(q_HQD):
        kernel(
            q_HQD,
            k_GKD,
            None if seen_K is None else seen_K.contiguous(),
            *edges,
            cut.visited.runs_b42,
            cut.visited.tiles,
            cut.visited.which,
            cut.visited.masks,
            scores_HQT,
            keys_HQT,
            *q_HQD.stride(),
            *k_GKD.stride(),
            layer.scale / (layer.softcap or 1.0),
            layer.softcap or 1.0,
            blocks,
            layer.heads // k_GKD.shape[0],
            layer.query_length,
            cut.rows.parts,
            cut.columns.parts,
            int(cut.columns.edges[0]),
            layer.query_offset,
            rule.before,
            rule.after,
            rule.first_keys,
            count,
            TOP=max(2, triton.next_power_of_2(count)),
            HEAD_DIM=q_HQD.shape[2],
            BLOCK_DIM=block_width(q_HQD.shape[2]),
            BLOCK_QUERIES=cut.config.block_queries,
            BLOCK_KEYS=cut.config.block_keys,
            ROW_SLOTS=cut.rows.slots,
            KEY_SLOTS=cut.columns.slots,
            HAS_SLACK=cut.columns.has_slack,
            HAS_PADDING=seen_K is not None,
            HAS_SOFTCAP=layer.softcap is not None,
            BOUNDED_BEFORE=rule.bounded_before,
            BOUNDED_AFTER=rule.bounded_after,
            HAS_FIRST_KEYS=rule.first_keys > 0,
            FIRST_KEYS_CAUSAL=rule.first_keys_causal,
            LISTED=cut.visited.rule is None,
            num_warps=cut.config.num_warps,
            num_stages=cut.stages,
        )
    return scores_HQT, keys_HQT.long()
