"""The cells of a map, and who computes them: Triton's kernels, or PyTorch.

Both are exact implementations of the same reductions and are held to the same tests. Unless a caller
demands one of them, Triton's kernels are taken for tensors on a GPU, where Triton is installed, and
PyTorch for what they do not take: float64, q and k of different dtypes, heads wider than 256, a bias by
distance, a pattern that is no band and so unstructured that the masks of its tiles need more than 64 MiB,
and sampled maps.
In Triton's interpreter they run on a CPU when demanded.

H query heads, Q, K positions; M rows and N columns of a map.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from attnscope.kernels.errors import InvalidCall, UnsupportedCall
from attnscope.kernels.pooling import Cells, Pooler, Progress, Reading, Reduce
from attnscope.kernels.streaming import Layer
from attnscope.kernels.triton.device import missing

By = Literal["triton", "torch"]
"""Who computes."""

WIDEST = 256
"""The widest head whose tiles fit a multiprocessor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooled:
    """A map of many pairs a cell.

    Attributes:
        values: float32 `[..., rows, columns]`; NaN where a cell holds no visible pair.
        visible_share: float32 `[rows, columns]`, the share of each cell's pairs (of the queries
            read) that may attend; 0 where the cell is wholly masked.
        row_edges: int64 `[rows + 1]`; row m holds the queries `row_edges[m]` to
            `row_edges[m + 1] − 1`.
        column_edges: int64 `[columns + 1]`, likewise over keys.
        sampled_rows: How many queries were read where not all were; None when it is exact.
    """

    values: Tensor
    visible_share: Tensor
    row_edges: Tensor
    column_edges: Tensor
    sampled_rows: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a map shows of a layer.

    Attributes:
        layer: Its heads, for one sequence.
        lse_HQ: Natural log-sum-exp, sink included; −inf where nothing is seen.
        row_edges: int64 `[M + 1]`, on the CPU.
        column_edges: int64 `[N + 1]`, on the CPU.
        reduce: Of a cell's visible pairs; the mean is made of their sum later.
        reading: What a pair is worth.
        value_norm_HK: `‖v_j‖`, `[H or 1, K]`, for the reading "value_weighted".
    """

    layer: Layer
    lse_HQ: Tensor
    row_edges: Tensor
    column_edges: Tensor
    reduce: Reduce = "sum"
    reading: Reading = "weight"
    value_norm_HK: Tensor | None = None

    def __post_init__(self) -> None:
        if self.reduce not in get_args(Reduce):
            raise InvalidCall(
                f"reduce must be one of {', '.join(get_args(Reduce))}, got {self.reduce!r}."
            )


def map_of(
    asked: Asked,
    *,
    by: By | None = None,
    queries_per_row: int | None = None,
    progress: Progress | None = None,
) -> Pooled:
    """The map; the arguments are those of `cells`."""
    found = cells(asked, by=by, queries_per_row=queries_per_row, progress=progress)
    values = found.values_HMN
    visible_MN = found.visible_MN.to(values)
    heights_M = asked.row_edges.diff()
    if asked.reduce == "mean":
        values = values / visible_MN
    elif asked.reduce == "sum":
        values = values * (heights_M / found.read_M)[:, None].to(values)
    values = values.masked_fill(visible_MN == 0, torch.nan).float()
    share_MN = visible_MN / (found.read_M[:, None] * asked.column_edges.diff()).to(values)
    read, there = int(found.read_M.sum()), int(heights_M.sum())
    return Pooled(
        values=values,
        visible_share=share_MN.float(),
        row_edges=asked.row_edges,
        column_edges=asked.column_edges,
        sampled_rows=None if read == there else read,
    )


def cells(
    asked: Asked,
    *,
    by: By | None = None,
    queries_per_row: int | None = None,
    progress: Progress | None = None,
) -> Cells:
    """The sums (of a mean as well) or maxima of a map, and how many pairs each cell holds.

    Args:
        asked: The map.
        by: Who computes; by the rule of this module when None.
        queries_per_row: Read only so many queries of each row, evenly spaced; None reads all.
        progress: Called with the share done; it may raise to stop.

    Raises:
        InvalidCall: Nobody of that name.
        UnsupportedCall: Triton was demanded and does not take the map; says why.
    """
    if queries_per_row is None and chosen(asked.layer, by) == "triton":
        try:
            return _by_triton(asked, progress)
        except UnsupportedCall:
            if by is not None:
                raise
    elif by == "triton":
        raise UnsupportedCall("Triton's maps read every query.", "Sampled maps are by torch.")
    return _by_torch(asked, queries_per_row, progress)


def chosen(layer: Layer, by: By | None) -> By:
    """Who computes what is asked of this layer; `by` is what a caller demands.

    Raises:
        InvalidCall: Nobody of that name.
        UnsupportedCall: Triton was demanded and does not take the layer; says why.
    """
    if by is None:
        on_gpu = layer.q_HQD.device.type == "cuda"
        return "triton" if on_gpu and _refusal(layer) is None else "torch"
    if by not in get_args(By):
        raise InvalidCall(f"maps are computed by {' or '.join(get_args(By))}, not by {by!r}.")
    refusal = _refusal(layer) if by == "triton" else None
    if refusal is not None:
        raise UnsupportedCall(f"Triton's maps: {refusal}.", "Maps by torch are as exact.")
    return by


def _refusal(layer: Layer) -> str | None:
    """What keeps Triton's kernels from this layer, in words."""
    q, k = layer.q_HQD, layer.k_GKD
    if q.dtype != k.dtype or q.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"q and k are {q.dtype} and {k.dtype}, not both float32, float16 or bfloat16"
    if q.shape[2] > WIDEST:
        return f"heads up to {WIDEST} wide are taken, and these are {q.shape[2]}"
    if layer.distance_bias_HR is not None:
        return "they add no bias by distance to the scores"
    return missing(q.device)


def _by_triton(asked: Asked, progress: Progress | None) -> Cells:
    # Not at the top: Triton need not be installed where its kernels do not run.
    from attnscope.kernels.triton.maps_cells import map_cells, visible_pairs

    maximum = asked.reduce == "max"
    found = map_cells(
        asked.layer,
        asked.lse_HQ,
        asked.row_edges,
        asked.column_edges,
        worth="score" if asked.reading == "score" else "weight",
        norm_HK=asked.value_norm_HK if asked.reading == "value_weighted" else None,
        sums=not maximum,
        maxima=maximum,
        progress=progress,
    )
    values_HMN = found.maxima_HMN if maximum else found.sums_HMN
    assert values_HMN is not None
    return Cells(
        values_HMN=values_HMN,
        visible_MN=visible_pairs(asked.layer, asked.row_edges, asked.column_edges),
        read_M=asked.row_edges.diff(),
    )


def _by_torch(asked: Asked, queries_per_row: int | None, progress: Progress | None) -> Cells:
    whole_layer = asked.layer.heads > 1 and queries_per_row is None
    pooler = Pooler(
        asked.layer.key_major() if whole_layer else asked.layer,
        asked.lse_HQ,
        column_edges=asked.column_edges,
        reading=asked.reading,
        maximum=asked.reduce == "max",
        value_norm_HK=asked.value_norm_HK,
    )
    return pooler.run(asked.row_edges, queries_per_row=queries_per_row, progress=progress)
