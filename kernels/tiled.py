"""Flash attention in plain PyTorch: the algorithm itself, on any device.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim; R rows of one tile (the queries
of a block, once for each query head that shares a kv head), C keys of one tile. Lower-case b and g:
the sequences and kv heads that one tile covers.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Protocol

import torch
from torch import Tensor

from attnscope.kernels import distance_bias
from attnscope.kernels.call import AttentionCall, AttentionOutput
from attnscope.kernels.patterns.pattern import Pattern, Spans
from attnscope.kernels.scores import Positions, accumulation_dtype, scores, visible

LOG2_E = math.log2(math.e)

FEWEST_ROWS = 128
"""Rows of a tile, at least, on a processor: with fewer, the products are too flat."""
MOST_VISITED = 1.25
"""Keys that a block of queries visits, over those that one of them does, at most where rows allow."""

Tile = tuple[range, tuple[range, ...]]
"""Keys in a row, and those among them that some query of the block does not see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """How the scores are cut into tiles.

    Attributes:
        queries: Queries of a tile, at most.
        keys: Keys of a tile, at most.
        scores: Scores of a tile, over its heads and sequences: it takes as many of them as fit,
            and always at least one kv head of one sequence.
    """

    queries: int
    keys: int
    scores: int


def default_block(call: AttentionCall, device: torch.device) -> Block:
    """The block that measured fastest: about a cache's worth of scores, more on an accelerator.

    Where a pattern shows each query few keys, a processor takes fewer queries at a time: together they
    visit fewer keys that most of them do not see.
    """
    on_cpu = device.type == "cpu"
    rows, keys, budget = (512, 1024, 2**19) if on_cpu else (1024, 2048, 2**26)
    if on_cpu:
        rows = _alike(call, rows)
    return Block(queries=max(rows // call.group_size, 64), keys=keys, scores=budget)


def _alike(call: AttentionCall, rows: int) -> int:
    """So many queries, or half of them again and again, that they see little more than one alone does."""
    middle = call.query_offset + call.query_length // 2

    def visited(queries: int) -> int:
        spans = call.pattern.key_spans(middle, middle + queries, call.key_length)
        return sum(last - first for first, last in spans)

    alone = visited(1) if call.query_length > FEWEST_ROWS else call.key_length
    while rows > FEWEST_ROWS and visited(rows) > MOST_VISITED * alone:
        rows //= 2
    return rows


def tiled(
    q_BHQD: Tensor,
    k_BGKD: Tensor,
    v_BGKD: Tensor,
    call: AttentionCall,
    *,
    sinks_H: Tensor | None = None,
    visible_keys_BK: Tensor | None = None,
    distance_bias_HR: Tensor | None = None,
    block: Block | None = None,
) -> AttentionOutput:
    """Exact attention by tiles with an online softmax (arXiv 1805.02867, 2112.05682, 2205.14135).

    Never holds more scores than one tile; never repeats k and v for the query heads that share
    them; visits only the keys that the pattern lets a block of queries see, and applies the rule
    only where it divides a tile. Sums in float32 (float64 for float64 inputs).

    Args:
        q_BHQD: `[B, H, Q, D]`, any strides.
        k_BGKD: `[B, G, K, D]`.
        v_BGKD: `[B, G, K, value_dim]`.
        call: What the tensors are and which pairs are visible.
        sinks_H: One logit a head that joins the denominator (gpt-oss); given iff `has_sinks`.
        visible_keys_BK: bool, False where a key is padding; given iff `has_padding`.
        distance_bias_HR: float32 `[H, Q + K − 1]`, see `kernels/distance_bias.py`; given iff
            `has_distance_bias`.
        block: How to cut; `default_block` when None.

    Raises:
        InvalidCall: The tensors are not those of the call.
    """
    call.check(
        q_BHQD,
        k_BGKD,
        v_BGKD,
        sinks_H=sinks_H,
        visible_keys_BK=visible_keys_BK,
        distance_bias_HR=distance_bias_HR,
    )
    block = block or default_block(call, q_BHQD.device)
    out_BHQD = q_BHQD.new_empty(*q_BHQD.shape[:3], call.value_dim)
    lse_BHQ = q_BHQD.new_empty(q_BHQD.shape[:3], dtype=accumulation_dtype(q_BHQD.dtype))
    group = call.group_size
    for sequences, kv_heads, queries in _regions(call, block):
        heads = slice(kv_heads.start * group, kv_heads.stop * group)
        out_bhQD, lse_bhQ = attend(
            q_BHQD[sequences, heads, queries],
            k_BGKD[sequences, kv_heads],
            v_BGKD[sequences, kv_heads],
            call,
            first_query=queries.start + call.query_offset,
            sinks_h=None if sinks_H is None else sinks_H[heads],
            visible_keys_bK=None if visible_keys_BK is None else visible_keys_BK[sequences],
            distance_bias_hR=None
            if distance_bias_HR is None
            else distance_bias.of_part(
                distance_bias_HR[heads],
                range(queries.start, queries.stop),
                range(call.key_length),
                query_length=call.query_length,
            ),
            keys_at_a_time=block.keys,
        )
        out_BHQD[sequences, heads, queries] = out_bhQD
        lse_BHQ[sequences, heads, queries] = lse_bhQ
    return AttentionOutput(out_BHQD=out_BHQD, lse_BHQ=lse_BHQ)


class Keys(Protocol):
    """Keys or values of a region, `[b, g, K, ·]`: a tensor, or pages that stand for one."""

    def narrow(self, dim: int, start: int, length: int, /) -> Tensor:
        """As `Tensor.narrow`, of the dimension of the keys."""
        ...


def attend(
    q_bhQD: Tensor,
    k_bgKD: Keys,
    v_bgKD: Keys,
    call: AttentionCall,
    *,
    first_query: int,
    sinks_h: Tensor | None = None,
    visible_keys_bK: Tensor | None = None,
    distance_bias_hR: Tensor | None = None,
    keys_at_a_time: int,
) -> tuple[Tensor, Tensor]:
    """One region of `tiled`: some queries of some heads against all the keys that they see.

    Args:
        q_bhQD: Queries in a row, `[b, h, Q, D]`.
        k_bgKD: The keys of these heads, read a tile at a time.
        v_bgKD: Their values.
        call: The whole call, whose pattern, scale and softcap hold here.
        first_query: Absolute position of the first of these queries.
        sinks_h: Their sink logits, or None.
        visible_keys_bK: bool, False where a key is padding, or None.
        distance_bias_hR: Of these queries and heads, and every key, or None.
        keys_at_a_time: Keys of a tile, at most.

    Returns:
        Output `[b, h, Q, value_dim]` and log-sum-exp `[b, h, Q]`, in the dtype that sums are held in.
    """
    group = call.group_size
    # [b, g, group, Q, D] -> [b, g, group · Q, D]: heads that share keys become rows.
    q_bgRD = q_bhQD.unflatten(1, (-1, group)).flatten(2, 3)
    state = _start(q_bgRD, call, sinks_h)
    _attend(
        state,
        k_bgKD,
        v_bgKD,
        call,
        queries=range(first_query, first_query + q_bhQD.shape[2]),
        visible_keys_bK=visible_keys_bK,
        distance_bias_hR=distance_bias_hR,
        keys_at_a_time=keys_at_a_time,
    )
    out_bgRD, lse_bgR = _finish(state)
    out_bhQD = out_bgRD.unflatten(2, (group, -1)).flatten(1, 2)
    return out_bhQD, lse_bgR.unflatten(2, (group, -1)).flatten(1, 2)


def key_tiles(
    pattern: Pattern, queries: range, key_length: int, keys_at_a_time: int
) -> Iterator[Tile]:
    """The keys that a block of queries must visit, and where among them the rule divides.

    Args:
        pattern: The rule.
        queries: Absolute positions of the block.
        key_length: K.
        keys_at_a_time: Longest tile.

    Yields:
        `(keys, divided)`: tiles are disjoint and ascending; each query sees all keys of the tile
        outside `divided`, so the rule need be applied only there.
    """
    whole = pattern.full_key_spans(queries.start, queries.stop, key_length)
    for first, last in pattern.key_spans(queries.start, queries.stop, key_length):
        for start in range(first, last, keys_at_a_time):
            keys = range(start, min(start + keys_at_a_time, last))
            yield keys, _outside(keys, whole)


def _outside(keys: range, spans: Spans) -> tuple[range, ...]:
    parts, at = [], keys.start
    for first, last in spans:
        if at < min(first, keys.stop):
            parts.append(range(at, min(first, keys.stop)))
        at = max(at, last)
    return (*parts, range(at, keys.stop)) if at < keys.stop else tuple(parts)


def _regions(call: AttentionCall, block: Block) -> Iterator[tuple[slice, slice, slice]]:
    """Sequences, kv heads and queries that are worked on together."""
    queries = min(block.queries, call.query_length)
    per_head = call.group_size * queries * min(block.keys, call.key_length)
    kv_heads = min(max(block.scores // per_head, 1), call.kv_heads)
    together = kv_heads == call.kv_heads
    sequences = min(max(block.scores // (per_head * kv_heads), 1), call.batch) if together else 1
    yield from product(
        _slices(call.batch, sequences),
        _slices(call.kv_heads, kv_heads),
        _slices(call.query_length, queries),
    )


def _slices(length: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


@dataclass(slots=True)
class _Softmax:
    """An online softmax in powers of 2: `out` and `total` are relative to 2 ** `highest`.

    Base 2, its factor folded into the scale, as GPU kernels do; on a CPU because MKL's exp takes up
    to 150 times as long where it underflows, which every hidden pair does.
    """

    q_bgRD: Tensor
    out_bgRD: Tensor
    total_bgR1: Tensor
    highest_bgR1: Tensor


def _start(q_bgRD: Tensor, call: AttentionCall, sinks_h: Tensor | None) -> _Softmax:
    dtype = accumulation_dtype(q_bgRD.dtype)
    q_bgRD = q_bgRD.to(dtype)
    one_a_row = (*q_bgRD.shape[:3], 1)
    out_bgRD = q_bgRD.new_zeros(*q_bgRD.shape[:3], call.value_dim)
    if sinks_h is not None:
        # The sink is a first key whose value is 0; joined through the log-sum-exp afterwards, the
        # rounding of large logarithms would reach the output.
        sinks_gR1 = sinks_h.to(dtype).unflatten(0, (-1, call.group_size, 1))
        sinks_gR1 = sinks_gR1.repeat_interleave(q_bgRD.shape[2] // call.group_size, dim=1)
        highest_bgR1 = (sinks_gR1 * LOG2_E).expand(one_a_row)
        return _Softmax(q_bgRD, out_bgRD, q_bgRD.new_ones(one_a_row), highest_bgR1)
    # The lowest number, not −inf: −inf − (−inf) would be NaN in a row that sees nothing yet.
    highest_bgR1 = q_bgRD.new_full(one_a_row, torch.finfo(dtype).min)
    return _Softmax(q_bgRD, out_bgRD, q_bgRD.new_zeros(one_a_row), highest_bgR1)


def _attend(
    state: _Softmax,
    k_bgKD: Keys,
    v_bgKD: Keys,
    call: AttentionCall,
    *,
    queries: range,
    visible_keys_bK: Tensor | None,
    distance_bias_hR: Tensor | None,
    keys_at_a_time: int,
) -> None:
    q_bgRD = state.q_bgRD
    scale = call.scale * LOG2_E
    softcap = None if call.softcap is None else call.softcap * LOG2_E
    tiles = key_tiles(call.pattern, queries, call.key_length, keys_at_a_time)
    for group in _grouped(tiles, keys_at_a_time):
        padding_bC = None if visible_keys_bK is None else _gathered(visible_keys_bK, group, 1)
        if padding_bC is not None and not padding_bC.any():
            continue
        k_bgCD, v_bgCD = _gathered(k_bgKD, group, 2), _gathered(v_bgKD, group, 2)
        scores_bgRC = scores(q_bgRD, k_bgCD, scale=scale, softcap=softcap)
        if distance_bias_hR is not None:
            _add_bias(scores_bgRC, distance_bias_hR, group, len(queries))
        padded = padding_bC is not None and not bool(padding_bC.all())
        for start, part in _ruled(group, padded=padded):
            seen_bQC = visible(
                call.pattern,
                queries,
                part,
                visible_keys_bK if padded else None,
                device=q_bgRD.device,
            )
            _hide(scores_bgRC[..., start : start + len(part)], seen_bQC)
        _update(state, scores_bgRC, v_bgCD.to(q_bgRD.dtype))


def _grouped(tiles: Iterator[Tile], keys_at_a_time: int) -> Iterator[list[Tile]]:
    """Tiles in a row that are together no longer than one may be: stripes become one product."""
    group: list[Tile] = []
    length = 0
    for tile in tiles:
        length += len(tile[0])
        if group and length > keys_at_a_time:
            yield group
            group, length = [], len(tile[0])
        group.append(tile)
    if group:
        yield group


def _gathered(tensor: Keys, group: list[Tile], dim: int) -> Tensor:
    """The keys of the group: a view of one tile, a copy of several."""
    parts = [tensor.narrow(dim, keys.start, len(keys)) for keys, _ in group]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def _ruled(group: list[Tile], *, padded: bool) -> Iterator[tuple[int, Positions]]:
    """Where the rule must be applied: places in the group, and the keys there."""
    keys, divided = group[0]
    if len(group) == 1:
        yield from ((part.start - keys.start, part) for part in ((keys,) if padded else divided))
    elif padded or any(divided for _, divided in group):
        yield 0, torch.cat([torch.arange(keys.start, keys.stop) for keys, _ in group])


def _add_bias(
    scores_bgRC: Tensor, distance_bias_hR: Tensor, group: list[Tile], query_length: int
) -> None:
    device = scores_bgRC.device
    key_C = torch.cat([torch.arange(keys.start, keys.stop, device=device) for keys, _ in group])
    query_Q = torch.arange(query_length, device=device)
    bias_hQC = distance_bias.of_pairs(distance_bias_hR, query_Q, key_C, query_length=query_length)
    kv_heads = scores_bgRC.shape[1]
    bias_gRC = bias_hQC.unflatten(0, (kv_heads, -1)).flatten(1, 2)
    scores_bgRC.add_(bias_gRC.to(scores_bgRC.dtype), alpha=LOG2_E)


def _hide(scores_bgRC: Tensor, seen_bQC: Tensor) -> None:
    seen_b11QC = seen_bQC.reshape(-1, 1, 1, *seen_bQC.shape[-2:])
    # An addition over the heads that share the mask is a third of the price of a masked fill.
    zero = scores_bgRC.new_zeros(())
    bias_b11QC = torch.where(seen_b11QC, zero, -torch.inf)
    scores_bgRC.unflatten(2, (-1, seen_bQC.shape[-2])).add_(bias_b11QC)


def _update(state: _Softmax, scores_bgRC: Tensor, v_bgCD: Tensor) -> None:
    highest_bgR1 = torch.maximum(state.highest_bgR1, scores_bgRC.amax(-1, keepdim=True))
    shrink_bgR1 = (state.highest_bgR1 - highest_bgR1).exp2_()
    weights_bgRC = scores_bgRC.sub_(highest_bgR1).exp2_()
    state.total_bgR1.mul_(shrink_bgR1).add_(weights_bgRC.sum(-1, keepdim=True))
    state.out_bgRD.mul_(shrink_bgR1).add_(weights_bgRC @ v_bgCD)
    state.highest_bgR1 = highest_bgR1


def _finish(state: _Softmax) -> tuple[Tensor, Tensor]:
    total_bgR1 = state.total_bgR1
    out_bgRD = state.out_bgRD.div_(total_bgR1.masked_fill(total_bgR1 == 0, 1))
    return out_bgRD, (state.highest_bgR1 / LOG2_E + total_bgR1.log()).squeeze(-1)
