"""What each query gives, in numbers that are sums over its keys: all in one pass over the key tiles.

Its weight in all, Σ p ln p (of which entropy is made), Σ p |i − j|, the weight on chosen keys, on
the key before it, within windows, and on the keys whose token is its own, or follows it. Windows are
looked at in the tiles near the diagonal alone.

H query heads, G kv heads, Q, K positions, D head dim, W windows; in a kernel R slots of a block of
queries, C of a tile of keys, p_ pointers, b_ blocks, o_ offsets, m_ masks.
"""

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from attnscope.kernels.streaming import Layer
from attnscope.kernels.triton.configurations import FlashConfig, block_width
from attnscope.kernels.triton.maps_plan import NO_RULE, Cut, cut_of
from attnscope.kernels.triton.maps_tile import (
    key_places,
    load_lse,
    load_queries,
    places,
    tile_scores,
    tile_seen,
)
from attnscope.kernels.triton.online_softmax import exponential

LOWEST_LOG = tl.constexpr(-80.0)
"""Below it a weight is next to nothing, and its log is not to be infinite."""


@triton.jit
def near_sums(b_weights, b_after, p_windows, WINDOWS: tl.constexpr, WIDTH: tl.constexpr):
    """The weight on the key before each query and within each window: `[R, WIDTH]`."""
    o_name = tl.arange(0, WIDTH)
    b_near = tl.where((o_name == 0)[None, :], _on(b_weights, b_after == -1)[:, None], 0.0)
    for window in tl.static_range(WINDOWS):
        reach = tl.load(p_windows + window)
        m_within = (b_after > -reach) & (b_after < reach)
        b_near += tl.where((o_name == window + 1)[None, :], _on(b_weights, m_within)[:, None], 0.0)
    return b_near


@triton.jit
def token_sums(b_weights, b_after, b_token, p_tokens, p_tokens_before, o_keys, m_keys):
    """The weight on earlier keys of each query's token, and on keys that follow one: `[R]` both."""
    b_key = tl.load(p_tokens + o_keys, mask=m_keys, other=0)
    b_before = tl.load(p_tokens_before + o_keys, mask=m_keys, other=0)
    b_same = _on(b_weights, (b_key[None, :] == b_token[:, None]) & (b_after < 0))
    b_next = _on(b_weights, (b_before[None, :] == b_token[:, None]) & (b_after <= 0))
    return b_same, b_next


@triton.jit
def _on(b_weights, m_pairs):
    return tl.sum(tl.where(m_pairs, b_weights, 0.0), 1)


@triton.jit(do_not_specialize=["rows", "columns", "first_key", "query_offset", "before", "after"])
def row_sums_kernel(
    p_q,
    p_k,
    p_lse,
    p_visible,
    p_chosen,
    p_windows,
    p_query_tokens,
    p_tokens,
    p_tokens_before,
    p_row_edges,
    p_column_edges,
    p_runs,
    p_tiles,
    p_which,
    p_masks,
    p_out,
    q_head,
    q_row,
    q_dim,
    k_head,
    k_row,
    k_dim,
    out_name,
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
    reach,
    WINDOWS: tl.constexpr,
    NEAR_WIDTH: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    ROW_SLOTS: tl.constexpr,
    KEY_SLOTS: tl.constexpr,
    HAS_SLACK: tl.constexpr,
    HAS_PADDING: tl.constexpr,
    HAS_TOKENS: tl.constexpr,
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
    b_lse = load_lse(p_lse + head * query_length, o_queries, m_queries)
    o_positions = query_offset + o_queries
    b_token = o_queries
    if HAS_TOKENS:
        b_token = tl.load(p_query_tokens + o_queries, mask=m_queries, other=0)
    first = tl.min(tl.where(m_queries, o_positions, 2**30))
    last = tl.max(tl.where(m_queries, o_positions, -1))

    b_mass = tl.zeros([BLOCK_QUERIES], tl.float32)
    b_plogp = tl.zeros([BLOCK_QUERIES], tl.float32)
    b_distance = tl.zeros([BLOCK_QUERIES], tl.float32)
    b_sink = tl.zeros([BLOCK_QUERIES], tl.float32)
    b_same = tl.zeros([BLOCK_QUERIES], tl.float32)
    b_next = tl.zeros([BLOCK_QUERIES], tl.float32)
    b_near = tl.zeros([BLOCK_QUERIES, NEAR_WIDTH], tl.float32)
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
            b_log = tile_scores(
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
            b_log -= b_lse[:, None]
            m_seen = m_keys[None, :]
            if part != 2:
                m_seen = m_seen & tile_seen(
                    o_positions,
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
            if part != 2 or HAS_SLACK or HAS_PADDING:
                b_log = tl.where(m_seen, b_log, float("-inf"))
            b_weights = exponential(b_log)
            b_after = o_keys[None, :] - o_positions[:, None]
            b_chosen = tl.load(p_chosen + o_keys, mask=m_keys, other=0.0)
            b_mass += tl.sum(b_weights, 1)
            b_plogp += tl.sum(b_weights * tl.maximum(b_log, LOWEST_LOG), 1)
            b_distance += tl.sum(b_weights * tl.abs(b_after).to(tl.float32), 1)
            b_sink += tl.sum(b_weights * b_chosen[None, :], 1)
            if HAS_TOKENS:
                b_own, b_following = token_sums(
                    b_weights, b_after, b_token, p_tokens, p_tokens_before, o_keys, m_keys
                )
                b_same += b_own
                b_next += b_following
            start = tl.load(p_column_edges + tile * (BLOCK_KEYS // KEY_SLOTS))
            if (start < last + reach) & (start + BLOCK_KEYS > first - reach):
                b_near += near_sums(b_weights, b_after, p_windows, WINDOWS, NEAR_WIDTH)

    p_out += head * query_length + o_queries
    tl.store(p_out, b_mass, mask=m_queries)
    tl.store(p_out + out_name, b_plogp, mask=m_queries)
    tl.store(p_out + 2 * out_name, b_distance, mask=m_queries)
    tl.store(p_out + 3 * out_name, b_sink, mask=m_queries)
    o_name = tl.arange(0, NEAR_WIDTH)
    p_near = p_out[:, None] + (4 + o_name)[None, :] * out_name
    tl.store(p_near, b_near, mask=m_queries[:, None] & (o_name <= WINDOWS)[None, :])
    if HAS_TOKENS:
        tl.store(p_out + (5 + WINDOWS) * out_name, b_same, mask=m_queries)
        tl.store(p_out + (6 + WINDOWS) * out_name, b_next, mask=m_queries)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Which token stands where, as numbers that are equal for equal tokens; int64.

    Attributes:
        of_Q: Each query's.
        of_K: Each key's; a hidden key's is that of no other.
        before_K: That of the key before each.
    """

    of_Q: Tensor
    of_K: Tensor
    before_K: Tensor


def row_sums(
    layer: Layer,
    lse_HQ: Tensor,
    chosen_K: Tensor,
    windows: tuple[int, ...],
    tokens: Tokens | None = None,
    *,
    config: FlashConfig | None = None,
) -> dict[str, Tensor]:
    """What each query of each head gives, by name, float32 `[H, Q]` each; 0 where nothing is seen.

    Args:
        layer: q and k in float32, float16 or bfloat16, any strides, heads up to 256 wide.
        lse_HQ: Natural log-sum-exp, sink included; −inf where nothing is seen.
        chosen_K: bool, the keys that "sink_mass" is the weight on.
        windows: w counts the keys less than w positions away.
        tokens: For "duplicate_token" and "induction", which are left out without.
        config: How to cut; by `map_config` when None.

    Raises:
        UnsupportedCall: The pattern has so little structure that its masks would not fit.
    """
    everything = (torch.tensor([0, layer.query_length]), torch.tensor([0, layer.key_length]))
    cut = cut_of(layer, *everything, config)
    names = ["mass", "log", "mean_distance", "sink_mass", "previous_token"]
    names += [f"window_mass_{window}" for window in windows]
    names += [] if tokens is None else ["duplicate_token", "induction"]
    out_NHQ = lse_HQ.new_empty((len(names), *lse_HQ.shape), dtype=torch.float32)
    _launch(layer, lse_HQ, chosen_K, windows, tokens, cut, out_NHQ)
    return dict(zip(names, out_NHQ.unbind(), strict=True))


def _launch(
    layer: Layer,
    lse_HQ: Tensor,
    chosen_K: Tensor,
    windows: tuple[int, ...],
    tokens: Tokens | None,
    cut: Cut,
    out_NHQ: Tensor,
) -> None:
    q_HQD, k_GKD, rule = layer.q_HQD, layer.k_GKD, cut.visited.rule or NO_RULE
    device, config, blocks = q_HQD.device, cut.config, len(cut.visited.runs_b42)
    seen_K = layer.visible_keys_K
    edges = (torch.from_numpy(each.edges).to(device) for each in (cut.rows, cut.columns))
    kernel: Any = row_sums_kernel[(blocks * layer.heads,)]
    with torch.cuda.device_of(q_HQD):
        kernel(
            q_HQD,
            k_GKD,
            lse_HQ.float().contiguous(),
            None if seen_K is None else seen_K.contiguous(),
            chosen_K.float(),
            torch.tensor(windows, dtype=torch.int32, device=device),
            *(
                (None, None, None)
                if tokens is None
                else (tokens.of_Q, tokens.of_K, tokens.before_K)
            ),
            *edges,
            cut.visited.runs_b42,
            cut.visited.tiles,
            cut.visited.which,
            cut.visited.masks,
            out_NHQ,
            *q_HQD.stride(),
            *k_GKD.stride(),
            out_NHQ.stride(0),
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
            max((2, *windows)),
            WINDOWS=len(windows),
            NEAR_WIDTH=triton.next_power_of_2(len(windows) + 1),
            HEAD_DIM=q_HQD.shape[2],
            BLOCK_DIM=block_width(q_HQD.shape[2]),
            BLOCK_QUERIES=config.block_queries,
            BLOCK_KEYS=config.block_keys,
            ROW_SLOTS=cut.rows.slots,
            KEY_SLOTS=cut.columns.slots,
            HAS_SLACK=cut.columns.has_slack,
            HAS_PADDING=seen_K is not None,
            HAS_TOKENS=tokens is not None,
            HAS_SOFTCAP=layer.softcap is not None,
            BOUNDED_BEFORE=rule.bounded_before,
            BOUNDED_AFTER=rule.bounded_after,
            HAS_FIRST_KEYS=rule.first_keys > 0,
            FIRST_KEYS_CAUSAL=rule.first_keys_causal,
            LISTED=cut.visited.rule is None,
            num_warps=config.num_warps,
            num_stages=cut.stages,
        )
