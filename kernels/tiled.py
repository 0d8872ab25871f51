"""Flash attention in plain PyTorch: the algorithm itself, on any device.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim; R rows of one tile (the queries
of a block, once for each query head that shares a kv head), C keys of one tile. Lower-case b and g:
the sequences and kv heads that are worked on together; N blocks of queries.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Protocol

import torch
from torch import Tensor

from attnscope.kernels import distance_bias
from attnscope.kernels.call import AttentionCall, AttentionOutput
from attnscope.kernels.patterns.band import band
from attnscope.kernels.scores import Positions, accumulation_dtype, scores, visible
from attnscope.kernels.tiling import Block, Tile, band_keys, default_block, key_tiles, regions

LOG2_E = math.log2(math.e)

Bias = Callable[[range, Positions], Tensor]
"""What a rule adds to scores `[Q, C]`: 0 where a pair is visible, minus infinity where it is hidden."""


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

    Never holds more scores than fit the block; never repeats k and v for the query heads that share
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
    bias = _bias(call, out_BHQD.device)
    for sequences, kv_heads, queries, blocks in regions(call, block):
        heads = slice(kv_heads.start * call.group_size, kv_heads.stop * call.group_size)
        together = attend if blocks == 1 else partial(_attend_blocks, blocks=blocks)
        out_BHQD[sequences, heads, queries], lse_BHQ[sequences, heads, queries] = together(
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
            bias=bias,
        )
    return AttentionOutput(out_BHQD=out_BHQD, lse_BHQ=lse_BHQ)


def _attend_blocks(  # noqa: PLR0913 -- what a call has, of a region
    q_bhQD: Tensor,
    k_bgKD: Tensor,
    v_bgKD: Tensor,
    call: AttentionCall,
    *,
    blocks: int,
    first_query: int,
    sinks_h: Tensor | None,
    visible_keys_bK: Tensor | None,
    distance_bias_hR: Tensor | None,
    keys_at_a_time: int,
    bias: Bias,
) -> tuple[Tensor, Tensor]:
    """Blocks of a band of one kv head: to `attend`, N short sequences in which the same rule holds.

    The keys of a block start as far after those of the one before as its queries do: views, no copies.
    """
    q_NhQD = q_bhQD[0].unflatten(1, (blocks, -1)).transpose(0, 1)
    queries = q_NhQD.shape[2]
    seen = band_keys(call, queries)
    keys = slice(first_query + seen.start, first_query + (blocks - 1) * queries + seen.stop)
    dtype = accumulation_dtype(q_bhQD.dtype)
    k_NCD, v_NCD = (
        tensor[0, 0, keys].to(dtype).unfold(0, len(seen), queries).mT for tensor in (k_bgKD, v_bgKD)
    )
    visible_keys_NC = (
        None if visible_keys_bK is None else visible_keys_bK[0, keys].unfold(0, len(seen), queries)
    )
    if distance_bias_hR is not None:
        # Of the first block: the distances of every other are the same.
        first = range(keys.start, keys.start + len(seen))
        distance_bias_hR = distance_bias.of_part(
            distance_bias_hR, range(queries), first, query_length=q_bhQD.shape[2]
        )
    out_NhQD, lse_NhQ = attend(
        q_NhQD,
        k_NCD[:, None],
        v_NCD[:, None],
        replace(call, key_length=len(seen)),
        first_query=-seen.start,
        sinks_h=sinks_h,
        visible_keys_bK=visible_keys_NC,
        distance_bias_hR=distance_bias_hR,
        keys_at_a_time=keys_at_a_time,
        bias=bias,
    )
    out_hQD, lse_hQ = (each.transpose(0, 1).flatten(1, 2) for each in (out_NhQD, lse_NhQ))
    return out_hQD[None], lse_hQ[None]


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
    bias: Bias | None = None,
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
        bias: The call's rule, to share what it remembers; made here when None.

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
        bias=bias or _bias(call, q_bhQD.device),
    )
    out_bgRD, lse_bgR = _finish(state)
    out_bhQD = out_bgRD.unflatten(2, (group, -1)).flatten(1, 2)
    return out_bhQD, lse_bgR.unflatten(2, (group, -1)).flatten(1, 2)


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
    bias: Bias,
) -> None:
    q_bgRD = state.q_bgRD
    scale = call.scale * LOG2_E
    softcap = None if call.softcap is None else call.softcap * LOG2_E
    tiles = key_tiles(call.pattern, queries, call.key_length, keys_at_a_time)
    for group in _grouped(tiles, keys_at_a_time):
        seen_bC = None if visible_keys_bK is None else _gathered(visible_keys_bK, group, 1)
        if seen_bC is not None and not seen_bC.any():
            continue
        # No name is given to the scores: they would outlive their turn, beside those of the next tile.
        _update(
            state,
            _hidden(
                scores(q_bgRD, _gathered(k_bgKD, group, 2), scale=scale, softcap=softcap),
                group,
                queries,
                seen_bC,
                bias,
                distance_bias_hR,
            ),
            _gathered(v_bgKD, group, 2).to(q_bgRD.dtype),
        )


def _hidden(
    scores_bgRC: Tensor,
    group: list[Tile],
    queries: range,
    seen_bC: Tensor | None,
    bias: Bias,
    distance_bias_hR: Tensor | None,
) -> Tensor:
    """The scores, in place, with their bias, and minus infinity where the rule or the padding hides a pair."""
    for start, part in _divided(group):
        part_bgRC = scores_bgRC[..., start : start + len(part)]
        # An addition over the heads that share the mask is a third of the price of a masked fill.
        part_bgRC.unflatten(2, (-1, len(queries))).add_(bias(queries, part))
    if seen_bC is not None and not seen_bC.all():
        scores_bgRC.add_(_as_bias(seen_bC)[:, None, None])
    if distance_bias_hR is not None:
        bias_hQC = _by_distance(distance_bias_hR, group, len(queries))
        bias_gRC = bias_hQC.unflatten(0, (scores_bgRC.shape[1], -1)).flatten(1, 2)
        scores_bgRC.add_(bias_gRC, alpha=LOG2_E)
    return scores_bgRC


def _by_distance(distance_bias_hR: Tensor, group: list[Tile], query_length: int) -> Tensor:
    """The bias of every pair of the group, `[h, Q, C]`."""
    device = distance_bias_hR.device
    key_C = torch.cat([torch.arange(keys.start, keys.stop, device=device) for keys, _ in group])
    query_Q = torch.arange(query_length, device=device)
    return distance_bias.of_pairs(distance_bias_hR, query_Q, key_C, query_length=query_length)


def _bias(call: AttentionCall, device: torch.device) -> Bias:
    def made(queries: range, keys: Positions) -> Tensor:
        return _as_bias(visible(call.pattern, queries, keys, device=device))

    if band(call.pattern) is None:
        return made
    # A window is cut at both ends alike in every block: two masks serve all of them.
    remembered = lru_cache(maxsize=2)(made)

    def shifted(queries: range, keys: Positions) -> Tensor:
        assert isinstance(keys, range)
        first = queries.start
        return remembered(range(len(queries)), range(keys.start - first, keys.stop - first))

    return shifted


def _as_bias(seen: Tensor) -> Tensor:
    return torch.where(seen, 0.0, -torch.inf)


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


def _divided(group: list[Tile]) -> Iterator[tuple[int, Positions]]:
    """Where the rule must be applied: places in the group, and the keys there."""
    keys, divided = group[0]
    if len(group) == 1:
        yield from ((part.start - keys.start, part) for part in divided)
    elif any(divided for _, divided in group):
        yield 0, torch.cat([torch.arange(keys.start, keys.stop) for keys, _ in group])


def _update(state: _Softmax, scores_bgRC: Tensor, v_bgCD: Tensor) -> None:
    highest_bgR1 = torch.maximum(state.highest_bgR1, scores_bgRC.amax(-1, keepdim=True))
    shrink_bgR1 = (state.highest_bgR1 - highest_bgR1).exp2_()
    weights_bgRC = scores_bgRC.sub_(highest_bgR1).exp2_()
    state.total_bgR1 = weights_bgRC.sum(-1, keepdim=True).addcmul_(state.total_bgR1, shrink_bgR1)
    state.out_bgRD = (weights_bgRC @ v_bgCD).addcmul_(state.out_bgRD, shrink_bgR1)
    state.highest_bgR1 = highest_bgR1


def _finish(state: _Softmax) -> tuple[Tensor, Tensor]:
    # A row that saw something has a total of 1 or more: its highest score adds 2 ** 0.
    out_bgRD = state.out_bgRD.div_(state.total_bgR1.clamp_min(1))
    return out_bgRD, (state.highest_bgR1 / LOG2_E + state.total_bgR1.log()).squeeze(-1)
