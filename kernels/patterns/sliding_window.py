"""A query sees itself and the window − 1 keys before it."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from attnscope.kernels.patterns.pattern import (
    SpanPattern,
    Spans,
    pairs_up_to,
    require_integer,
    spans,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlidingWindow(SpanPattern):
    """i − window < j ≤ i: causal window (Mistral, arXiv 2310.06825 §2).

    Attributes:
        window: Keys a query may see, its own included, as in transformers.
    """

    window: int

    def __post_init__(self) -> None:
        require_integer("window", self.window, least=1)

    @property
    def key(self) -> str:
        """See `Pattern.key`."""
        return "sliding_window"

    def visible(self, query_index: Tensor, key_index: Tensor) -> Tensor:
        """See `Pattern.visible`."""
        return (key_index <= query_index) & (key_index > query_index - self.window)

    def key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """See `Pattern.key_spans`; tight."""
        return spans([(query_start - self.window + 1, query_end)], key_length)

    def full_key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """See `Pattern.full_key_spans`; tight."""
        return spans([(query_end - self.window, query_start + 1)], key_length)

    def runs(self, query_Q: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """See `SpanPattern.runs`."""
        return [(query_Q - self.window + 1, query_Q + 1)]

    def kept_pairs(
        self, query_length: int, key_length: int, *, query_offset: int | None = None
    ) -> int:
        """See `Pattern.kept_pairs`."""
        shape = query_length, key_length, query_offset
        return pairs_up_to(0, *shape) - pairs_up_to(-self.window, *shape)
