"""A window with gaps in it."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from attnscope.kernels.patterns.cell_pattern import CellPattern, Edges, distances
from attnscope.kernels.patterns.pattern import (
    LEAST_GAP,
    Spans,
    multiples,
    repeated,
    require_integer,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dilated(CellPattern):
    """|i − j| ≤ window // 2 and (i − j) mod dilation = 0 (Longformer's, arXiv 2004.05150 §3.1).

    Attributes:
        window: Tokens that the window spans, the query's own included; the paper counts the keys in
            it instead, which are window / dilation. An even window is one token wider, as in `local`.
        dilation: Tokens from one visible key to the next; 1 leaves no gaps.
    """

    window: int
    dilation: int

    def __post_init__(self) -> None:
        require_integer("window", self.window, least=1)
        require_integer("dilation", self.dilation, least=1)

    @property
    def key(self) -> str:
        """See `Pattern.key`."""
        return "dilated"

    @property
    def reach(self) -> int:
        """Tokens to the farthest visible key."""
        return self.window // 2 // self.dilation * self.dilation

    def visible(self, query_index: Tensor, key_index: Tensor) -> Tensor:
        """See `Pattern.visible`."""
        distance = query_index - key_index
        return (distance.abs() <= self.reach) & (distance % self.dilation == 0)

    def key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """See `Pattern.key_spans`; gaps under `LEAST_GAP` are read."""
        width, step = query_end - query_start, self.dilation
        # Of the starts in the window, those whose keys exist.
        first = max(-self.reach, -((query_end - 1) // step) * step)
        last = min(self.reach, (key_length - 1 - query_start) // step * step)
        starts = range(query_start + first, query_start + last + 1, step)
        return repeated(starts, width, key_length)

    def full_key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """See `Pattern.full_key_spans`: without gaps, or of one query with wide ones."""
        if self.dilation == 1:
            whole = range(query_end - 1 - self.reach, query_start + self.reach + 1)
            return repeated(whole, 1, key_length)
        if query_end - query_start == 1 and self.dilation > LEAST_GAP:
            return self.key_spans(query_start, query_end, key_length)
        return ()

    def some(self, queries: Edges, keys: Edges) -> np.ndarray:
        """See `CellPattern.some`."""
        return multiples(self.dilation, *self._within(*distances(queries, keys))) > 0

    def every(self, queries: Edges, keys: Edges) -> np.ndarray:
        """See `CellPattern.every`."""
        nearest, end = distances(queries, keys)
        return multiples(self.dilation, *self._within(nearest, end)) == end - nearest

    def phases(self, queries: range, key_starts: np.ndarray, width: int) -> np.ndarray:
        """See `Pattern.phases`."""
        del width
        # No block beyond the last query's reach is asked about, so the numbers stay 0 or more.
        return queries.stop - key_starts + self.reach

    def keys_seen(self, query_Q: np.ndarray, first_Q: np.ndarray, last_Q: np.ndarray) -> np.ndarray:
        """See `Pattern.keys_seen`."""
        between = self._within(query_Q - last_Q + 1, query_Q - first_Q + 1)
        return multiples(self.dilation, *between)

    def _within(self, nearest: np.ndarray, end: np.ndarray) -> Edges:
        return np.maximum(nearest, -self.reach), np.minimum(end, self.reach + 1)
