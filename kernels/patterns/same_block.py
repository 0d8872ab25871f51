"""A query sees its own block."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from attnscope.kernels.patterns.pattern import SpanPattern, Spans, spans


@dataclass(frozen=True, slots=True, kw_only=True)
class SameBlock(SpanPattern):
    """i // block = j // block: what `block_sparse` and `axial` see nearby; no family of its own.

    Attributes:
        block: Tokens of a block.
    """

    block: int

    @property
    def key(self) -> str:
        """See `Pattern.key`."""
        return "same_block"

    def visible(self, query_index: Tensor, key_index: Tensor) -> Tensor:
        """See `Pattern.visible`."""
        return query_index // self.block == key_index // self.block

    def key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """See `Pattern.key_spans`; tight."""
        first, last = query_start // self.block, (query_end - 1) // self.block
        return spans([(first * self.block, (last + 1) * self.block)], key_length)

    def full_key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """See `Pattern.full_key_spans`; tight."""
        if query_start // self.block != (query_end - 1) // self.block:
            return ()
        return self.key_spans(query_start, query_end, key_length)

    def runs(self, query_Q: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """See `SpanPattern.runs`."""
        first_Q = query_Q // self.block * self.block
        return [(first_Q, first_Q + self.block)]
