"""Pooled maps: many (query, key) pairs drawn as one cell, streamed over blocks of the weights.

H query heads, Q, K positions; M map rows, N map columns; a block holds R queries (r map rows of w
queries each) and C keys.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from attnscope.kernels.scores import accumulation_dtype
from attnscope.kernels.streaming import (
    BLOCK_KEYS,
    BLOCK_PAIRS,
    Layer,
    Segment,
    exponentials,
    rows_of,
    segments,
)

Reduce = Literal["mean", "max", "sum"]
Reading = Literal["weight", "score", "value_weighted"]
Progress = Callable[[float], None]
"""Called with the share done, 0 to 1; it may raise to stop the work."""

WIDE = 64
"""Mean width of columns that are reduced one by one."""
SPARSE_BLOCKS = 8
"""Blocks that a sampled map's rows are cut into at least: fewer would hide more pairs one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowBlock:
    """Queries read together, as whole rows of the map or as a part of one row.

    Attributes:
        row_start: First row of the map.
        row_end: One past the last.
        queries_rw: Index into Q of every query, `[r, w]`; shorter rows repeat their last query.
        real_rw: bool, False for the repeats; None when there are none.
    """

    row_start: int
    row_end: int
    queries_rw: Tensor
    real_rw: Tensor | None


def bin_edges(start: int, end: int, bins: int) -> Tensor:
    """Edges of `bins` runs of `[start, end)`, alike in length to within one: int64 `[bins + 1]`."""
    return start + torch.arange(bins + 1) * (end - start) // bins


def row_blocks(edges: Tensor, *, limit: int, queries_per_row: int | None) -> Iterator[RowBlock]:
    """Cuts the rows of a map into blocks of about `limit` queries.

    Args:
        edges: Row edges, int64 `[M + 1]`.
        limit: Queries of a block.
        queries_per_row: Read only that many evenly spaced queries of each row; None reads all.
    """
    starts, ends = edges[:-1], edges[1:]
    widest = int((ends - starts).max())
    if queries_per_row is not None and queries_per_row < widest:
        yield from _sampled_blocks(starts, ends, limit, queries_per_row)
        return
    if widest >= limit:
        for row in range(len(starts)):
            for at in range(int(starts[row]), int(ends[row]), limit):
                part = torch.arange(at, min(at + limit, int(ends[row])))
                yield RowBlock(row_start=row, row_end=row + 1, queries_rw=part[None], real_rw=None)
        return
    step = limit // widest
    for row in range(0, len(starts), step):
        end = min(row + step, len(starts))
        queries_rw = starts[row:end, None] + torch.arange(widest)
        real_rw = queries_rw < ends[row:end, None]
        yield RowBlock(
            row_start=row,
            row_end=end,
            queries_rw=torch.minimum(queries_rw, ends[row:end, None] - 1),
            real_rw=None if bool(real_rw.all()) else real_rw,
        )


def _sampled_blocks(
    starts: Tensor, ends: Tensor, limit: int, queries_per_row: int
) -> Iterator[RowBlock]:
    taken = min(queries_per_row, int((ends - starts).min()))
    # The middle of each of `taken` equal parts of the row.
    offsets = (2 * torch.arange(taken) + 1) * (ends - starts)[:, None] // (2 * taken)
    queries_rw = starts[:, None] + offsets
    step = max(1, min(limit // taken, -(-len(starts) // SPARSE_BLOCKS)))
    for row in range(0, len(starts), step):
        end = min(row + step, len(starts))
        yield RowBlock(row_start=row, row_end=end, queries_rw=queries_rw[row:end], real_rw=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """The sums or maxima of a map before they are divided, and how many pairs each cell holds.

    Attributes:
        values_HMN: Sums, or maxima.
        visible_MN: int64, visible pairs read in each cell.
        read_M: int64, queries read for each row.
    """

    values_HMN: Tensor
    visible_MN: Tensor
    read_M: Tensor


class Pooler:
    """One pass over a layer that pools its pairs into the cells of a map.

    Args:
        layer: Scores and visibility.
        lse_HQ: Natural log-sum-exp, sink included; ignored by the reading "score".
        value_norm_HK: `‖v_j‖` per head, broadcastable `[H or 1, K]`; used by "value_weighted".
        column_edges: int64 `[N + 1]`.
        reading: What a pair is worth.
        maximum: Keep the largest pair of a cell instead of the sum.
    """

    def __init__(
        self,
        layer: Layer,
        lse_HQ: Tensor,
        *,
        column_edges: Tensor,
        reading: Reading,
        maximum: bool,
        value_norm_HK: Tensor | None = None,
    ) -> None:
        self._layer = layer
        self._device = layer.q_HQD.device
        # A query that sees nothing has weights 0, which is what an infinite denominator gives.
        self._lse_HQ = lse_HQ.masked_fill(lse_HQ == -torch.inf, torch.inf)
        self._edges: list[int] = column_edges.tolist()
        self._reading = reading
        self._maximum = maximum
        self._norm_HK = value_norm_HK if reading == "value_weighted" else None
        self._fill = -torch.inf if maximum and reading == "score" else 0.0
        shown = layer.visible_keys_K
        self._shown_before = (
            None if shown is None else torch.nn.functional.pad(shown.cumsum(0), (1, 0)).cpu()
        )

    def run(
        self, row_edges: Tensor, *, queries_per_row: int | None, progress: Progress | None
    ) -> Cells:
        """Reads the rows between the edges, at most `queries_per_row` queries of each."""
        layer = self._layer
        rows, columns = len(row_edges) - 1, len(self._edges) - 1
        keys = range(self._edges[0], self._edges[-1])
        limit = max(16, BLOCK_PAIRS // (layer.heads * min(BLOCK_KEYS, len(keys))))
        values_HMN = torch.full(
            (layer.heads, rows, columns),
            self._fill,
            dtype=accumulation_dtype(layer.q_HQD.dtype),
            device=self._device,
        )
        visible_MN = torch.zeros((rows, columns), dtype=torch.int64)
        read_M = torch.zeros(rows, dtype=torch.int64)
        for block in row_blocks(row_edges, limit=limit, queries_per_row=queries_per_row):
            at = slice(block.row_start, block.row_end)
            read_M[at] += _read(block)
            self._pool_block(block, keys, values_HMN[:, at], visible_MN[at])
            if progress is not None:
                progress(block.row_end / rows)
        return Cells(values_HMN=values_HMN, visible_MN=visible_MN, read_M=read_M)

    def _pool_block(
        self, block: RowBlock, keys: range, values_HrN: Tensor, visible_rN: Tensor
    ) -> None:
        queries = block.queries_rw.flatten()
        first, last = int(queries.min()), int(queries.max())
        index = queries.to(self._device)
        q_index = slice(first, last + 1) if last - first + 1 == len(queries) else index
        for segment in segments(self._layer, first, last, keys, limit=BLOCK_KEYS):
            first_bin, bounds = self._bounds(segment)
            into = slice(first_bin, first_bin + len(bounds) - 1)
            seen_RC = self._seen(block, index, segment)
            pooled_HrC = self._pool_rows(block, q_index, segment, seen_RC)
            self._pool_columns(pooled_HrC, bounds, values_HrN[..., into])
            visible_rN[:, into] += self._count(block, segment, bounds, seen_RC)

    def _seen(self, block: RowBlock, index: Tensor, segment: Segment) -> Tensor | None:
        """Visibility `[R, C]` where some pair must be hidden one by one, or None."""
        keys = range(segment.start, segment.end)
        repeats = self._reading == "score" and block.real_rw is not None
        if not (segment.masked or repeats):
            return None
        seen_RC = self._layer.seen(index, keys, padding=False)
        if block.real_rw is not None:
            seen_RC = seen_RC & block.real_rw.flatten()[:, None].to(self._device)
        return seen_RC

    def _pool_rows(
        self, block: RowBlock, q_index: slice | Tensor, segment: Segment, seen_RC: Tensor | None
    ) -> Tensor:
        layer, keys = self._layer, slice(segment.start, segment.end)
        x_HRC = layer.scores(q_index, keys)
        if self._reading != "score":
            lse_HR = rows_of(self._lse_HQ, q_index)
            if block.real_rw is not None:
                lse_HR = lse_HR.masked_fill(~block.real_rw.flatten().to(self._device), torch.inf)
            x_HRC.sub_(lse_HR[..., None])
            if seen_RC is not None:
                # To add over all heads takes a fifth of the time of filling where hidden.
                x_HRC.add_(torch.where(seen_RC, 0.0, -torch.inf))
            exponentials(x_HRC)
        elif seen_RC is not None:
            x_HRC.masked_fill_(~seen_RC, self._fill)
        rows, width = block.queries_rw.shape
        x_HrwC = x_HRC.view(layer.heads, rows, width, -1)
        pooled_HrC = self._reduce_rows(x_HrwC)
        if self._norm_HK is not None:
            pooled_HrC *= self._norm_HK[:, None, keys]
        if layer.visible_keys_K is not None:
            pooled_HrC.masked_fill_(~layer.visible_keys_K[keys], self._fill)
        return pooled_HrC

    def _reduce_rows(self, x_HrwC: Tensor) -> Tensor:
        if x_HrwC.shape[2] == 1:
            return x_HrwC[:, :, 0]
        return x_HrwC.amax(2) if self._maximum else x_HrwC.sum(2)

    def _bounds(self, segment: Segment) -> tuple[int, list[int]]:
        """The first column a segment touches, and the columns' bounds within the segment."""
        first = bisect_right(self._edges, segment.start) - 1
        last = bisect_left(self._edges, segment.end)
        inner = (edge - segment.start for edge in self._edges[first + 1 : last])
        return first, [0, *inner, segment.end - segment.start]

    def _pool_columns(self, x_HrC: Tensor, bounds: list[int], into_HrN: Tensor) -> None:
        if self._maximum:
            torch.maximum(into_HrN, _column_maxima(x_HrC, bounds), out=into_HrN)
        else:
            into_HrN += _column_sums(x_HrC, bounds)

    def _count(
        self, block: RowBlock, segment: Segment, bounds: list[int], seen_RC: Tensor | None
    ) -> Tensor:
        """Visible pairs of the segment by cell, int64 `[r, columns touched]`."""
        if seen_RC is None:
            shown = torch.tensor(bounds)
            if self._shown_before is not None:
                shown = self._shown_before[shown + segment.start]
            return _read(block)[:, None] * shown.diff()
        rows, width = block.queries_rw.shape
        seen_rC = seen_RC.float().view(rows, width, -1).sum(1)
        if self._layer.visible_keys_K is not None:
            seen_rC *= self._layer.visible_keys_K[segment.start : segment.end]
        return _column_sums(seen_rC, bounds).round_().to(torch.int64).cpu()


def _read(block: RowBlock) -> Tensor:
    rows, width = block.queries_rw.shape
    return torch.full((rows,), width) if block.real_rw is None else block.real_rw.sum(1)


def _column_sums(x_C: Tensor, bounds: list[int]) -> Tensor:
    """Sums of the last dimension between the bounds: `[..., len(bounds) - 1]`."""
    if x_C.shape[-1] >= WIDE * (len(bounds) - 1):
        parts = [x_C[..., start:end].sum(-1) for start, end in pairwise(bounds)]
        return torch.stack(parts, -1)
    # A product with the membership matrix is several times faster than a segmented sum.
    widths = torch.tensor(bounds).diff()
    member_CN = torch.eye(len(widths), dtype=x_C.dtype).repeat_interleave(widths, dim=0)
    return x_C @ member_CN.to(x_C.device)


def _column_maxima(x_C: Tensor, bounds: list[int]) -> Tensor:
    """Maxima of the last dimension between the bounds: `[..., len(bounds) - 1]`."""
    if x_C.shape[-1] >= WIDE * (len(bounds) - 1):
        parts = [x_C[..., start:end].amax(-1) for start, end in pairwise(bounds)]
        return torch.stack(parts, -1)
    edges = torch.tensor(bounds)
    starts, ends = edges[:-1], edges[1:]
    widest = int((ends - starts).max())
    # Narrow columns are spread to equal widths by repeating their last key.
    index_NW = torch.minimum(starts[:, None] + torch.arange(widest), ends[:, None] - 1)
    spread = x_C.index_select(-1, index_NW.flatten().to(x_C.device))
    return spread.view(*x_C.shape[:-1], len(starts), widest).amax(-1)
