"""Pooled maps: many (query, key) pairs drawn as one cell, streamed over blocks of the weights.

H query heads, Q, K positions; M map rows, N map columns; a block holds R queries (r map rows of w
queries each) and C keys.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from attnscope.kernels.bins import Columns, RowBlock, row_blocks
from attnscope.kernels.scores import accumulation_dtype
from attnscope.kernels.streaming import (
    BLOCK_KEYS,
    BLOCK_PAIRS,
    LEAST_ROWS,
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
LINE_PAIRS = 1 << 22
"""Elements of a block once its rows are pooled: 16 MiB of float32."""


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
        column_edges: int64 `[N + 1]`.
        reading: What a pair is worth.
        maximum: Keep the largest pair of a cell instead of the sum.
        value_norm_HK: `‖v_j‖` per head, `[H or 1, K]`; used by "value_weighted".
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
        self._dtype = accumulation_dtype(layer.q_HQD.dtype)
        # A query that sees nothing has weights 0, which is what an infinite denominator gives.
        self._lse_HQ = lse_HQ.masked_fill(lse_HQ == -torch.inf, torch.inf)
        self._columns = Columns(column_edges, self._device)
        self._reading = reading
        self._maximum = maximum
        self._norm_HK = value_norm_HK if reading == "value_weighted" else None
        self._fill = -torch.inf if maximum and reading == "score" else 0.0

    def run(
        self, row_edges: Tensor, *, queries_per_row: int | None, progress: Progress | None
    ) -> Cells:
        """Reads the rows between the edges, at most `queries_per_row` queries of each."""
        edges, heads = self._columns.edges, self._layer.heads
        rows, columns, keys = len(row_edges) - 1, len(edges) - 1, range(edges[0], edges[-1])
        values_HMN = torch.full(
            (heads, rows, columns), self._fill, dtype=self._dtype, device=self._device
        )
        visible_MN = torch.zeros((rows, columns), dtype=torch.int64)
        read_M = torch.zeros(rows, dtype=torch.int64)
        start, end = int(row_edges[0]), int(row_edges[-1])
        for block in row_blocks(
            row_edges,
            limit=max(LEAST_ROWS, BLOCK_PAIRS // (heads * min(BLOCK_KEYS, len(keys)))),
            rows=max(1, LINE_PAIRS // (heads * len(keys))),
            queries_per_row=queries_per_row,
        ):
            at = slice(block.row_start, block.row_end)
            read_M[at] += block.read_r
            self._pool_block(block, keys, values_HMN[:, at], visible_MN[at])
            if progress is not None:
                progress((block.last + 1 - start) / (end - start))
        if progress is not None:
            progress(1.0)
        return Cells(values_HMN=values_HMN, visible_MN=visible_MN, read_M=read_M)

    def _pool_block(
        self, block: RowBlock, keys: range, values_HrN: Tensor, visible_rN: Tensor
    ) -> None:
        """Adds the pairs of some queries to their rows of the map."""
        first, last = block.first, block.last
        visited = segments(self._layer, first, last, keys, limit=len(keys))
        if not visited:
            return
        columns = self._columns.touched(visited[0].start, visited[-1].end)
        within = range(self._columns.edges[columns.start], self._columns.edges[columns.stop])
        index = block.queries_rw.flatten().to(self._device)
        queries = slice(first, last + 1) if block.adjacent else index
        lse_HR = self._lse_of(block, queries)
        longest = max(BLOCK_KEYS, BLOCK_PAIRS // lse_HR.numel())
        shape = (self._layer.heads, block.queries_rw.shape[0], len(within))
        line_HrC = torch.full(shape, self._fill, dtype=self._dtype, device=self._device)
        for segment in visited:
            if not segment.masked:
                visible_rN[:, columns] += self._count(block, segment, columns, None)
            for piece in segment.pieces(longest):
                seen_RC = self._seen(block, index, piece)
                into = slice(piece.start - within.start, piece.end - within.start)
                x_HRC = self._pairs(queries, lse_HR, piece, seen_RC)
                self._pool_rows(x_HRC.unflatten(1, block.queries_rw.shape), line_HrC[..., into])
                if segment.masked:
                    visible_rN[:, columns] += self._count(block, piece, columns, seen_RC)
        self._hide_and_weigh(line_HrC, slice(within.start, within.stop))
        pooled_HrN = self._columns.reduce(line_HrC, columns, maximum=self._maximum)
        target_HrN = values_HrN[..., columns]
        if self._maximum:
            torch.maximum(target_HrN, pooled_HrN, out=target_HrN)
        else:
            target_HrN += pooled_HrN

    def _lse_of(self, block: RowBlock, queries: slice | Tensor) -> Tensor:
        lse_HR = rows_of(self._lse_HQ, queries)
        if block.real_rw is None:
            return lse_HR
        return lse_HR.masked_fill(~block.real_rw.flatten().to(self._device), torch.inf)

    def _seen(self, block: RowBlock, index: Tensor, segment: Segment) -> Tensor | None:
        """Visibility `[R, C]` where some pair must be hidden one by one, or None."""
        repeats = self._reading == "score" and block.real_rw is not None
        if not (segment.masked or repeats):
            return None
        seen_RC = self._layer.seen(index, range(segment.start, segment.end), padding=False)
        if block.real_rw is None:
            return seen_RC
        return seen_RC & block.real_rw.flatten()[:, None].to(self._device)

    def _pairs(
        self, queries: slice | Tensor, lse_HR: Tensor, segment: Segment, seen_RC: Tensor | None
    ) -> Tensor:
        """What each pair of a segment is worth, `[H, R, C]`; padding is hidden later."""
        x_HRC = self._layer.scores(queries, slice(segment.start, segment.end))
        if self._reading == "score":
            return x_HRC if seen_RC is None else x_HRC.masked_fill_(~seen_RC, self._fill)
        x_HRC.sub_(lse_HR[..., None])
        if seen_RC is not None:
            # To add over all heads takes a fifth of the time of filling where hidden.
            x_HRC.add_(torch.where(seen_RC, 0.0, -torch.inf))
        return exponentials(x_HRC)

    def _pool_rows(self, x_HrwC: Tensor, into_HrC: Tensor) -> None:
        if x_HrwC.shape[2] == 1:
            into_HrC.copy_(x_HrwC[:, :, 0])
        elif self._maximum:
            torch.amax(x_HrwC, 2, out=into_HrC)
        else:
            torch.sum(x_HrwC, 2, out=into_HrC)

    def _hide_and_weigh(self, line_HrC: Tensor, keys: slice) -> None:
        """Applies what depends on the key alone, once the rows are pooled."""
        if self._norm_HK is not None:
            line_HrC *= self._norm_HK[:, None, keys]
        if self._layer.visible_keys_K is not None:
            line_HrC.masked_fill_(~self._layer.visible_keys_K[keys], self._fill)

    def _count(
        self, block: RowBlock, segment: Segment, columns: slice, seen_RC: Tensor | None
    ) -> Tensor:
        """Visible pairs of the segment by cell, int64 `[r, columns]`."""
        shown_K = self._layer.visible_keys_K
        bounds = self._columns.bounds(segment.start, segment.end, columns)
        if seen_RC is None and shown_K is None:
            return block.read_r[:, None] * bounds.diff()
        keys = slice(segment.start, segment.end)
        if seen_RC is None:
            seen_rC = block.read_r[:, None].to(self._device, torch.float32)
        else:
            seen_rC = seen_RC.float().unflatten(0, block.queries_rw.shape).sum(1)
        if shown_K is not None:
            seen_rC = seen_rC * shown_K[keys]
        before_rC = torch.nn.functional.pad(seen_rC.cumsum(-1, dtype=torch.float64), (1, 0))
        return before_rC[:, bounds.to(self._device)].diff().round_().to("cpu", torch.int64)
