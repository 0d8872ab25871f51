"""A query sees its neighbours on both sides."""

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
class Local(SpanPattern):
    """|i − j| ≤ window // 2: bidirectional window (Longformer's, arXiv 2004.05150 §3.1).

    Attributes:
        window: Keys a query may see; an even window sees one key more, itself, as in Longformer.
    """

    window: int

    def __post_init__(self) -> None:
        require_integer("window", self.window, least=1)

    @property
    def key(self) -> str:
        """See `Pattern.key`."""
        return "local"

    @property
    def reach(self) -> int:
        """Keys seen on each side, window // 2."""
        return self.window // 2

    def visible(self, query_index: Tensor, key_index: Tensor) -> Tensor:
        """See `Pattern.visible`."""
        return (query_index - key_index).abs() <= self.reach

    def key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """See `Pattern.key_spans`; tight."""
        return spans([(query_start - self.reach, query_end + self.reach)], key_length)

    def full_key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """See `Pattern.full_key_spans`; tight."""
        return spans([(query_end - 1 - self.reach, query_start + self.reach + 1)], key_length)

    def runs(self, query_Q: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """See `SpanPattern.runs`."""
        return [(query_Q - self.reach, query_Q + self.reach + 1)]

    def kept_pairs(
        self, query_length: int, key_length: int, *, query_offset: int | None = None
    ) -> int:
        """See `Pattern.kept_pairs`."""
        shape = query_length, key_length, query_offset
        return pairs_up_to(self.reach, *shape) - pairs_up_to(-self.reach - 1, *shape)
