"""The cells of a map from q, k and the log-sum-exp: sums and maxima, in one pass over the key tiles.

One product a pair and no values: `p = exp2(score − lse)`, reduced where it lies, in a tile that
holds whole parts of cells (`maps_cut`), so that every part is written once and by one program. A
map of one position a cell is the exact tile; one row over all queries is what each key receives;
one column over all keys what each query gives, of another pattern than its own what that would keep.

H query heads, G kv heads, Q, K positions, D head dim; M rows and N columns of a map.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from attnscope.kernels.streaming import Layer
from attnscope.kernels.triton.configurations import FlashConfig, block_width
from attnscope.kernels.triton.maps_cells_kernel import map_cells_kernel
from attnscope.kernels.triton.maps_plan import NO_RULE, Cut, cut_of

MOST_PARTS = 2**26
"""Parts of cells held at once, 256 MiB of float32: the heads are read so many at a time."""

Worth = Literal["weight", "score", "pair"]
"""What a visible pair is worth: its weight, its score, or 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduced:
    """The cells of a map of some heads.

    Attributes:
        sums_HMN: float32, what the visible pairs of a cell are worth together; None if not asked.
        maxima_HMN: float32, what the one of most worth is; where none is visible −inf for scores, else 0.
    """

    sums_HMN: Tensor | None
    maxima_HMN: Tensor | None


def map_cells(
    layer: Layer,
    lse_HQ: Tensor,
    row_edges: Tensor,
    column_edges: Tensor,
    *,
    worth: Worth = "weight",
    norm_HK: Tensor | None = None,
    sums: bool = True,
    maxima: bool = False,
    progress: Callable[[float], None] | None = None,
    config: FlashConfig | None = None,
) -> Reduced:
    """Sums and maxima of the visible pairs of every cell, for all heads of a layer.

    Args:
        layer: q and k in float32, float16 or bfloat16, any strides, heads up to 256 wide.
        lse_HQ: Natural log-sum-exp, sink included; −inf where nothing is seen.
        row_edges: int64 `[M + 1]`, ascending indices into Q; row m holds `edges[m]` to `edges[m + 1] − 1`.
        column_edges: int64 `[N + 1]`, the same in K.
        worth: What a visible pair is worth.
        norm_HK: What the worth is multiplied by, key by key, `[H or 1, K]`; or None.
        sums: Whether to sum.
        maxima: Whether to take the largest.
        progress: Called with the share done; it may raise to stop.
        config: How to cut; by `map_config` when None.

    Raises:
        UnsupportedCall: The pattern has so little structure that its masks would not fit.
    """
    cut = cut_of(layer, row_edges, column_edges, config)
    shape = (layer.heads, len(row_edges) - 1, len(column_edges) - 1)
    sums_HMN = lse_HQ.new_empty(shape, dtype=torch.float32) if sums else None
    maxima_HMN = lse_HQ.new_empty(shape, dtype=torch.float32) if maxima else None
    for some, part in _parts(layer, cut.parts):
        norm = norm_HK if norm_HK is None or len(norm_HK) == 1 else norm_HK[some]
        found = _launch(part, lse_HQ[some], norm, cut, worth, (sums, maxima))
        if sums_HMN is not None and found.sums_HMN is not None:
            sums_HMN[some] = coarser(found.sums_HMN, *cut.split)
        if maxima_HMN is not None and found.maxima_HMN is not None:
            maxima_HMN[some] = coarser(found.maxima_HMN, *cut.split, maximum=True)
        if progress is not None:
            progress(some.stop / layer.heads)
    return Reduced(sums_HMN=sums_HMN, maxima_HMN=maxima_HMN)


def visible_pairs(
    layer: Layer, row_edges: Tensor, column_edges: Tensor, *, config: FlashConfig | None = None
) -> Tensor:
    """How many pairs of each cell may attend: int64 `[M, N]`; arguments as `map_cells`."""
    cut = cut_of(layer, row_edges, column_edges, config)
    one = replace(layer, q_HQD=layer.q_HQD[:1], k_GKD=layer.k_GKD[:1])
    found = _launch(one, None, None, cut, "pair", (True, False))
    assert found.sums_HMN is not None
    # A float32 counts the pairs of a part, and not those of every cell.
    return coarser(found.sums_HMN[0].long(), *cut.split)


def coarser(fine_HMN: Tensor, rows: int, columns: int, *, maximum: bool = False) -> Tensor:
    """Every `rows` × `columns` cells of a map as one: their sum, or the largest."""
    reduce = torch.amax if maximum else torch.sum
    tall_HMN = fine_HMN if columns == 1 else reduce(fine_HMN.unflatten(-1, (-1, columns)), -1)
    return tall_HMN if rows == 1 else reduce(tall_HMN.unflatten(-2, (-1, rows)), -2)


def _parts(layer: Layer, parts: int) -> Iterator[tuple[slice, Layer]]:
    """The heads in runs whose cells fit `MOST_PARTS`, whole kv heads at a time."""
    groups = layer.k_GKD.shape[0]
    size = layer.heads // groups
    step = max(1, MOST_PARTS // (parts * size))
    for start in range(0, groups, step):
        some = slice(start * size, min(start + step, groups) * size)
        yield some, replace(layer, q_HQD=layer.q_HQD[some], k_GKD=layer.k_GKD[start : start + step])


def _launch(
    layer: Layer,
    lse_HQ: Tensor | None,
    norm_HK: Tensor | None,
    cut: Cut,
    worth: Worth,
    wanted: tuple[bool, bool],
) -> Reduced:
    """The parts of the cells of these heads."""
    q_HQD, k_GKD, rule = layer.q_HQD, layer.k_GKD, cut.visited.rule or NO_RULE
    shape = (layer.heads, cut.rows.parts, cut.columns.parts)
    lowest = -torch.inf if worth == "score" else 0.0
    # What no query of a block sees is not visited, and stays as it is made here.
    sums_HMN = q_HQD.new_zeros(shape, dtype=torch.float32) if wanted[0] else None
    maxima_HMN = q_HQD.new_full(shape, lowest, dtype=torch.float32) if wanted[1] else None
    blocks = len(cut.visited.runs_b42)
    edges = (torch.from_numpy(each.edges).to(q_HQD.device) for each in (cut.rows, cut.columns))
    # Any: a type checker takes a launch for a call of the Python function.
    kernel: Any = map_cells_kernel[(blocks * layer.heads,)]
    with torch.cuda.device_of(q_HQD):
        kernel(
            q_HQD,
            k_GKD,
            None if lse_HQ is None else lse_HQ.float().contiguous(),
            None if norm_HK is None else norm_HK.float().contiguous(),
            None if layer.visible_keys_K is None else layer.visible_keys_K.contiguous(),
            *edges,
            cut.visited.runs_b42,
            cut.visited.tiles,
            cut.visited.which,
            cut.visited.masks,
            sums_HMN,
            maxima_HMN,
            *q_HQD.stride(),
            *k_GKD.stride(),
            layer.query_length,
            0 if norm_HK is None or len(norm_HK) == 1 else layer.key_length,
            layer.scale / (layer.softcap or 1.0),
            layer.softcap or 1.0,
            blocks,
            layer.heads // k_GKD.shape[0],
            cut.rows.parts,
            cut.columns.parts,
            int(cut.columns.edges[0]),
            layer.query_offset,
            rule.before,
            rule.after,
            rule.first_keys,
            HEAD_DIM=q_HQD.shape[2],
            BLOCK_DIM=block_width(q_HQD.shape[2]),
            BLOCK_QUERIES=cut.config.block_queries,
            BLOCK_KEYS=cut.config.block_keys,
            CELL_ROWS=cut.rows.slots,
            CELL_KEYS=cut.columns.slots,
            WORTH=worth,
            SUMS=wanted[0],
            MAXIMA=wanted[1],
            HAS_SLACK=cut.columns.has_slack,
            HAS_PADDING=layer.visible_keys_K is not None,
            HAS_NORM=norm_HK is not None,
            HAS_SOFTCAP=layer.softcap is not None,
            BOUNDED_BEFORE=rule.bounded_before,
            BOUNDED_AFTER=rule.bounded_after,
            HAS_FIRST_KEYS=rule.first_keys > 0,
            FIRST_KEYS_CAUSAL=rule.first_keys_causal,
            LISTED=cut.visited.rule is None,
            num_warps=cut.config.num_warps,
            num_stages=cut.stages,
        )
    return Reduced(sums_HMN=sums_HMN, maxima_HMN=maxima_HMN)
