"""Every query sees every key."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attnscope.kernels.patterns.pattern import ENDLESS, SpanPattern, Spans


@dataclass(frozen=True, slots=True, kw_only=True)
class Full(SpanPattern):
    """Bidirectional dense attention: encoders, cross-attention (arXiv 1706.03762 §3.2)."""

    @property
    def key(self) -> str:
        """See `Pattern.key`."""
        return "full"

    def visible(self, query_index: Tensor, key_index: Tensor) -> Tensor:
        """See `Pattern.visible`."""
        shape = torch.broadcast_shapes(query_index.shape, key_index.shape)
        return torch.ones(shape, dtype=torch.bool, device=query_index.device)

    def full_key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """See `Pattern.full_key_spans`."""
        del query_start, query_end
        return ((0, key_length),)

    def runs(self, query_Q: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """See `SpanPattern.runs`."""
        return [(np.zeros_like(query_Q), np.full_like(query_Q, ENDLESS))]

    def kept_pairs(
        self, query_length: int, key_length: int, *, query_offset: int | None = None
    ) -> int:
        """See `Pattern.kept_pairs`."""
        del query_offset
        return query_length * key_length
