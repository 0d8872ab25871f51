"""Patterns whose blocks are ruled by arithmetic on their corners."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from attnscope.kernels.patterns.pattern import EMPTY, FULL, PARTIAL, Pattern

_CELLS_AT_A_TIME = 2**18

Edges = tuple[np.ndarray, np.ndarray]
"""First positions of blocks, and one past their last ones."""

Corners = Callable[[Edges, Edges], np.ndarray]
"""What is true of each rectangle of queries and keys, bool that broadcasts to `[rows, columns]`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellPattern(Pattern):
    """A pattern that says of a rectangle of pairs at once whether it shows some, and whether all."""

    @abstractmethod
    def some(self, queries: Edges, keys: Edges) -> np.ndarray:
        """Whether any pair of each rectangle is visible; rectangles are not empty.

        Args:
            queries: int64 `[rows, 1]`, absolute positions.
            keys: int64 `[1, columns]`.

        Returns:
            bool that broadcasts to `[rows, columns]`.
        """

    @abstractmethod
    def every(self, queries: Edges, keys: Edges) -> np.ndarray:
        """Whether all pairs of each rectangle are visible; as `some`."""

    def block_mask(
        self, query_length: int, key_length: int, block: int, *, query_offset: int | None = None
    ) -> np.ndarray:
        """See `Pattern.block_mask`."""
        queries = self.queries(query_length, key_length, query_offset)
        return mask_of_corners(self.some, self.every, queries, key_length, block)


def mask_of_corners(
    some: Corners, every: Corners, queries: range, key_length: int, block: int
) -> np.ndarray:
    """The block mask of a pattern that says `some` and `every` of rectangles, as `CellPattern` does."""
    starts, ends = (each[:, None] + queries.start for each in _edges(len(queries), block))
    first, last = (each[None] for each in _edges(key_length, block))
    mask = np.empty((len(starts), first.shape[1]), np.uint8)
    step = max(_CELLS_AT_A_TIME // first.shape[1], 1)
    for at in range(0, len(mask), step):
        part = slice(at, at + step)
        corners = (starts[part], ends[part]), (first, last)
        shown = np.where(some(*corners), PARTIAL, EMPTY)
        mask[part] = np.where(every(*corners), FULL, shown)
    return mask


def distances(queries: Edges, keys: Edges) -> Edges:
    """The least i − j of the pairs of each rectangle, and one past the largest."""
    return queries[0] - keys[1] + 1, queries[1] - keys[0]


def _edges(length: int, block: int) -> Edges:
    starts = np.arange(0, length, block)
    return starts, np.minimum(starts + block, length)
