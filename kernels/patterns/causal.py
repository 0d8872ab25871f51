"""A query sees itself and everything before it."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from attnscope.kernels.patterns.pattern import SpanPattern, Spans, pairs_up_to, spans


@dataclass(frozen=True, slots=True, kw_only=True)
class Causal(SpanPattern):
    """j ≤ i: decoders (arXiv 1706.03762 §3.2.3). Keeps n(n + 1) / 2 of n² pairs."""

    @property
    def key(self) -> str:
        """See `Pattern.key`."""
        return "causal"

    def visible(self, query_index: Tensor, key_index: Tensor) -> Tensor:
        """See `Pattern.visible`."""
        return key_index <= query_index

    def key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """See `Pattern.key_spans`; tight."""
        del query_start
        return spans([(0, query_end)], key_length)

    def full_key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """See `Pattern.full_key_spans`; tight."""
        del query_end
        return spans([(0, query_start + 1)], key_length)

    def runs(self, query_Q: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """See `SpanPattern.runs`."""
        return [(np.zeros_like(query_Q), query_Q + 1)]

    def kept_pairs(
        self, query_length: int, key_length: int, *, query_offset: int | None = None
    ) -> int:
        """See `Pattern.kept_pairs`."""
        return pairs_up_to(0, query_length, key_length, query_offset)
