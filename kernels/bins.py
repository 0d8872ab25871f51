"""How the queries and the keys of a region are cut into the rows and columns of a map.

M map rows, N map columns; a block holds r rows of w queries each; C keys side by side.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

SPARSE_BLOCKS = 8
"""Blocks that a sampled map is cut into at least: fewer would hide more pairs one by one."""
WIDE = 32
"""Least width at which columns of equal width are reduced where they lie."""


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

    @property
    def first(self) -> int:
        """The first query."""
        return int(self.queries_rw[0, 0])

    @property
    def last(self) -> int:
        """The last query."""
        return int(self.queries_rw[-1, -1])

    @property
    def adjacent(self) -> bool:
        """Whether the queries follow each other without gap or repeat."""
        return self.last - self.first + 1 == self.queries_rw.numel() and self.real_rw is None

    @property
    def read_r(self) -> Tensor:
        """How many queries are read for each row: int64 `[r]`."""
        rows, width = self.queries_rw.shape
        return torch.full((rows,), width) if self.real_rw is None else self.real_rw.sum(1)


def bin_edges(start: int, end: int, bins: int) -> Tensor:
    """Edges of `bins` runs of `[start, end)`, alike in length to within one: int64 `[bins + 1]`."""
    return start + torch.arange(bins + 1) * (end - start) // bins


def row_blocks(
    edges: Tensor, *, limit: int, rows: int, queries_per_row: int | None
) -> Iterator[RowBlock]:
    """Cuts the rows of a map into blocks of about `limit` queries and at most `rows` rows.

    Args:
        edges: Row edges, int64 `[M + 1]`.
        limit: Queries of a block.
        rows: Rows of a block.
        queries_per_row: Read only that many evenly spaced queries of each row; None reads all.
    """
    starts, ends = edges[:-1], edges[1:]
    widest = int((ends - starts).max())
    if queries_per_row is not None and queries_per_row < widest:
        yield from _sampled_blocks(
            starts, ends, min(limit // queries_per_row, rows), queries_per_row
        )
        return
    if widest >= limit:
        for row in range(len(starts)):
            for at in range(int(starts[row]), int(ends[row]), limit):
                part = torch.arange(at, min(at + limit, int(ends[row])))
                yield RowBlock(row_start=row, row_end=row + 1, queries_rw=part[None], real_rw=None)
        return
    step = min(limit // widest, rows)
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
    starts: Tensor, ends: Tensor, rows: int, queries_per_row: int
) -> Iterator[RowBlock]:
    taken = min(queries_per_row, int((ends - starts).min()))
    # The middle of each of `taken` equal parts of the row.
    offsets = (2 * torch.arange(taken) + 1) * (ends - starts)[:, None] // (2 * taken)
    queries_rw = starts[:, None] + offsets
    step = max(1, min(rows, -(-len(starts) // SPARSE_BLOCKS)))
    for row in range(0, len(starts), step):
        end = min(row + step, len(starts))
        yield RowBlock(row_start=row, row_end=end, queries_rw=queries_rw[row:end], real_rw=None)


class Columns:
    """The columns of a map, and how values side by side are reduced to them.

    Args:
        edges: int64 `[N + 1]`; widths differ by at most one.
        device: Of the values to reduce.
    """

    def __init__(self, edges: Tensor, device: torch.device) -> None:
        self.edges: list[int] = edges.tolist()
        self._edges_N = edges
        widths = edges.diff()
        self._narrow = int(widths.min())
        self._alike = bool((widths == self._narrow).all())
        self._last_N = (edges[1:] - 1).to(device)
        self._long_N = (widths > self._narrow).to(device)
        offsets = torch.arange(self._narrow, device=device)[:, None]
        self._spread_WN = edges[:-1].to(device) + offsets

    def touched(self, start: int, end: int) -> slice:
        """The columns that hold any key of `[start, end)`."""
        return slice(bisect_right(self.edges, start) - 1, bisect_left(self.edges, end))

    def reduce(self, x_C: Tensor, columns: slice, *, maximum: bool) -> Tensor:
        """Sums or maxima by column.

        Args:
            x_C: `[..., C]`, from the first key of the first column to the last of the last.
            columns: Which columns these are.
            maximum: The largest, instead of the sum.

        Returns:
            `[..., columns]`.
        """
        if self._narrow == 1 and self._alike:
            return x_C
        if self._narrow >= WIDE and self._alike:
            x_CW = x_C.unflatten(-1, (-1, self._narrow))
            return x_CW.amax(-1) if maximum else x_CW.sum(-1)
        start = self.edges[columns.start]
        index_WN = self._spread_WN[:, columns] - start
        # Columns apart and their keys below each other, so that whole vectors are reduced at once.
        x_WN = x_C.index_select(-1, index_WN.flatten()).unflatten(-1, index_WN.shape)
        if self._alike:
            return x_WN.amax(-2) if maximum else x_WN.sum(-2)
        last_C = x_C.index_select(-1, self._last_N[columns] - start)
        if maximum:
            return x_WN.amax(-2).maximum(last_C)
        return x_WN.sum(-2).addcmul_(last_C, self._long_N[columns].to(x_C.dtype))

    def bounds(self, start: int, end: int, columns: slice) -> Tensor:
        """Where in `[start, end)` each column begins and the last ends: int64 on the CPU."""
        return self._edges_N[columns.start : columns.stop + 1].clamp(start, end) - start
