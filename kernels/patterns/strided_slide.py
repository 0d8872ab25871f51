"""A query sees the keys whose distance from it is a multiple of the stride."""

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
class StridedSlide(CellPattern):
    """(i − j) mod stride = 0: the far head of the strided pattern (arXiv 1904.10509 §4.3).

    The paper's is causal: `pattern("strided_slide", causal=True, ...)`.

    Attributes:
        stride: Tokens from one visible key to the next.
    """

    stride: int

    def __post_init__(self) -> None:
        require_integer("stride", self.stride, least=1)

    @property
    def key(self) -> str:
        """See `Pattern.key`."""
        return "strided_slide"

    def visible(self, query_index: Tensor, key_index: Tensor) -> Tensor:
        """See `Pattern.visible`."""
        return (query_index - key_index) % self.stride == 0

    def key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """See `Pattern.key_spans`; gaps under `LEAST_GAP` are read."""
        first = query_start % self.stride - self.stride
        return repeated(range(first, key_length, self.stride), query_end - query_start, key_length)

    def full_key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """See `Pattern.full_key_spans`: of one query, where the stride is over `LEAST_GAP`."""
        if self.stride == 1 or (query_end - query_start == 1 and self.stride > LEAST_GAP):
            return self.key_spans(query_start, query_end, key_length)
        return ()

    def some(self, queries: Edges, keys: Edges) -> np.ndarray:
        """See `CellPattern.some`."""
        return multiples(self.stride, *distances(queries, keys)) > 0

    def every(self, queries: Edges, keys: Edges) -> np.ndarray:
        """See `CellPattern.every`."""
        nearest, end = distances(queries, keys)
        return multiples(self.stride, nearest, end) == end - nearest

    def phases(self, queries: range, key_starts: np.ndarray, width: int) -> np.ndarray:
        """See `Pattern.phases`."""
        del width
        return (queries.start - key_starts) % self.stride

    def keys_seen(self, query_Q: np.ndarray, first_Q: np.ndarray, last_Q: np.ndarray) -> np.ndarray:
        """See `Pattern.keys_seen`."""
        return multiples(self.stride, query_Q - last_Q + 1, query_Q - first_Q + 1)
