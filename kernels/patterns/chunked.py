"""A query sees what came before it in its own chunk."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from attnscope.kernels.patterns.pattern import SpanPattern, Spans, require_integer, spans


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunked(SpanPattern):
    """i // chunk = j // chunk and j ≤ i: Llama 4's local layers.

    Source: `chunked_causal_mask_function` of transformers' masking_utils.

    Attributes:
        chunk: Tokens of a chunk.
    """

    chunk: int

    def __post_init__(self) -> None:
        require_integer("chunk", self.chunk, least=1)

    @property
    def key(self) -> str:
        """See `Pattern.key`."""
        return "chunked"

    def visible(self, query_index: Tensor, key_index: Tensor) -> Tensor:
        """See `Pattern.visible`."""
        same = query_index // self.chunk == key_index // self.chunk
        return same & (key_index <= query_index)

    def key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """See `Pattern.key_spans`; tight."""
        return spans([(query_start // self.chunk * self.chunk, query_end)], key_length)

    def full_key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """See `Pattern.full_key_spans`; tight."""
        first = (query_end - 1) // self.chunk * self.chunk
        return spans([(first, query_start + 1)], key_length)

    def runs(self, query_Q: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """See `SpanPattern.runs`."""
        return [(query_Q // self.chunk * self.chunk, query_Q + 1)]
