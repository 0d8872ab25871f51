"""A causal window, and the first tokens for everybody."""

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
class SinksWindow(SpanPattern):
    """i − window < j ≤ i, or j < sinks: StreamingLLM (arXiv 2309.17453 §3).

    The first queries see all the sinks, those after them included: a decoder's own causal rule is
    composed on top (`pattern("sinks_window", causal=True, ...)`).

    Attributes:
        window: Keys a query may see, its own included, besides the sinks.
        sinks: First tokens that every query sees.
    """

    window: int
    sinks: int

    def __post_init__(self) -> None:
        require_integer("window", self.window, least=1)
        require_integer("sinks", self.sinks, least=0)

    @property
    def key(self) -> str:
        """See `Pattern.key`."""
        return "sinks_window"

    def visible(self, query_index: Tensor, key_index: Tensor) -> Tensor:
        """See `Pattern.visible`."""
        near = (key_index <= query_index) & (key_index > query_index - self.window)
        return near | (key_index < self.sinks)

    def key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """See `Pattern.key_spans`; tight."""
        near = (query_start - self.window + 1, query_end)
        return spans([(0, self.sinks), near], key_length)

    def full_key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """See `Pattern.full_key_spans`; tight."""
        near = (query_end - self.window, query_start + 1)
        return spans([(0, self.sinks), near], key_length)

    def runs(self, query_Q: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """See `SpanPattern.runs`."""
        first_Q = np.zeros_like(query_Q)
        near_Q = np.maximum(query_Q - self.window + 1, self.sinks)
        return [(first_Q, first_Q + self.sinks), (near_Q, query_Q + 1)]

    def kept_pairs(
        self, query_length: int, key_length: int, *, query_offset: int | None = None
    ) -> int:
        """See `Pattern.kept_pairs`."""
        offset = key_length - query_length if query_offset is None else query_offset
        sinks = min(self.sinks, key_length)
        near = self._near_pairs(query_length, key_length, offset)
        near_and_sink = self._near_pairs(query_length, sinks, offset)
        return near + query_length * sinks - near_and_sink

    def _near_pairs(self, query_length: int, key_length: int, offset: int) -> int:
        shape = query_length, key_length, offset
        return pairs_up_to(0, *shape) - pairs_up_to(-self.window, *shape)
