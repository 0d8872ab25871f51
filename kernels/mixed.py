"""The one matrix that the heads of a layer make together, multiplied with rows and columns, tile by tile.

Attention rollout (arXiv 2005.00928 §3) multiplies such matrices of all layers. Here no matrix is ever whole: a
product needs one tile of the layer at a time.

H query heads, Q, K positions; S rows or columns that are multiplied at once; R queries and C keys of one tile.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from attnscope.kernels.pooling import Progress
from attnscope.kernels.streaming import (
    BLOCK_KEYS,
    BLOCK_PAIRS,
    LEAST_ROWS,
    Layer,
    exponentials,
    segments,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixed:
    """The mean over a layer's heads of their weights, or of their weights times the norms of the values.

    With the norms, ‖α·v‖ (arXiv 2004.10102 §2), every row is divided by its sum: a sink has no value, and so no part.
    A row that sums to 0 stays 0. The norms are those of v, before the output projection.

    Attributes:
        layer: The heads, for one sequence.
        lse_HQ: Natural log-sum-exp, sink included; −inf where nothing is seen.
        value_norm_HK: `‖v_j‖` of each head, for the mean by value; None for the plain mean.
    """

    layer: Layer
    lse_HQ: Tensor
    value_norm_HK: Tensor | None = None

    def before(self, rows_SQ: Tensor, progress: Progress | None = None) -> Tensor:
        """Rows times the matrix: what stands at each query is handed to the keys that it reads.

        Args:
            rows_SQ: Queries before the first and after the last that is not 0 in some row cost nothing.
            progress: Called with the share done; it may raise to stop.

        Returns:
            `[S, K]`, in the dtype of the rows.
        """
        found_SK = rows_SQ.new_zeros(len(rows_SQ), self.layer.key_length)
        every = range(self.layer.key_length)
        for rows, columns, tile_RC in self._tiles(_support(rows_SQ), every, progress):
            found_SK[:, columns] += rows_SQ[:, rows] @ tile_RC
        return found_SK

    def after(self, columns_KS: Tensor, progress: Progress | None = None) -> Tensor:
        """The matrix times columns: each query gathers what stands at the keys that it reads.

        Args:
            columns_KS: Keys before the first and after the last that is not 0 in some column cost nothing.
            progress: As for `before`.

        Returns:
            `[Q, S]`, in the dtype of the columns.
        """
        found_QS = columns_KS.new_zeros(self.layer.query_length, columns_KS.shape[1])
        every = range(self.layer.query_length)
        for rows, columns, tile_RC in self._tiles(every, _support(columns_KS.T), progress):
            found_QS[rows] += tile_RC @ columns_KS[columns]
        return found_QS

    def tile(self, queries: slice, keys: slice) -> Tensor:
        """A rectangle of the matrix, 0 where masked: `[R, C]`; the slices have starts and ends."""
        return self._divided(self._sums(queries, keys), self._totals(queries))

    def _tiles(
        self, queries: range, keys: range, progress: Progress | None
    ) -> Iterator[tuple[slice, slice, Tensor]]:
        """The tiles in which some query among these sees one of the keys."""
        step = self._rows_at_once
        for at in range(queries.start, queries.stop, step):
            rows = slice(at, min(at + step, queries.stop))
            totals_R = self._totals(rows)
            for columns in self._visited(rows, keys):
                yield rows, columns, self._divided(self._sums(rows, columns), totals_R)
            if progress is not None:
                progress((rows.stop - queries.start) / len(queries))

    @property
    def _rows_at_once(self) -> int:
        size = self.layer.heads * min(BLOCK_KEYS, self.layer.key_length)
        return max(LEAST_ROWS, BLOCK_PAIRS // size)

    def _visited(self, rows: slice, keys: range) -> list[slice]:
        first, last = rows.start, rows.stop - 1
        visited = segments(self.layer, first, last, keys, limit=BLOCK_KEYS, apart=False)
        return [slice(each.start, each.end) for each in visited]

    def _totals(self, rows: slice) -> Tensor | None:
        """What rows are divided by, `[R]`; None for the plain mean, which is as it is."""
        if self.value_norm_HK is None:
            return None
        every = range(self.layer.key_length)
        sums_R = (self._sums(rows, columns).sum(1) for columns in self._visited(rows, every))
        return sum(sums_R, self.lse_HQ.new_zeros(rows.stop - rows.start))

    def _divided(self, tile_RC: Tensor, totals_R: Tensor | None) -> Tensor:
        if totals_R is None:
            return tile_RC
        return tile_RC / totals_R.masked_fill(totals_R == 0, 1.0)[:, None]

    def _sums(self, rows: slice, columns: slice) -> Tensor:
        """The mean over the heads, rows not yet divided."""
        x_HRC = self.layer.scores(rows, columns)
        lse_HR = self.lse_HQ[:, rows]
        exponentials(x_HRC.sub_(lse_HR.masked_fill(lse_HR == -torch.inf, torch.inf)[..., None]))
        if self.value_norm_HK is not None:
            x_HRC *= self.value_norm_HK[:, None, columns]
        index_R = torch.arange(rows.start, rows.stop, device=x_HRC.device)
        seen_RC = self.layer.seen(index_R, range(columns.start, columns.stop))
        return x_HRC.mean(0).masked_fill_(~seen_RC, 0.0)


def _support(values_SN: Tensor) -> range:
    """From the first to the last place where something is not 0."""
    places = values_SN.any(0).nonzero()
    return range(int(places[0]), int(places[-1]) + 1) if len(places) else range(0)
