"""Every query sees the same keys, evenly apart."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attnscope.kernels.patterns.cell_pattern import CellPattern, Edges
from attnscope.kernels.patterns.pattern import (
    LEAST_GAP,
    Spans,
    multiples,
    repeated,
    require_integer,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Strided(CellPattern):
    """Keys j that are multiples of the stride: the fixed pattern's far head (arXiv 1904.10509 §4.3).

    The paper's positions are the last c of each block of `stride` tokens, j mod stride ≥ stride − c;
    here one, and the first of each block, so that the first token of all is among them.

    Attributes:
        stride: Tokens from one visible key to the next.
    """

    stride: int

    def __post_init__(self) -> None:
        require_integer("stride", self.stride, least=1)

    @property
    def key(self) -> str:
        """See `Pattern.key`."""
        return "strided"

    def visible(self, query_index: Tensor, key_index: Tensor) -> Tensor:
        """See `Pattern.visible`."""
        return torch.broadcast_tensors(query_index, key_index % self.stride == 0)[1]

    def key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """See `Pattern.key_spans`; strides under `LEAST_GAP` are read whole."""
        del query_start, query_end
        return repeated(range(0, key_length, self.stride), 1, key_length)

    def full_key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """See `Pattern.full_key_spans`; none where the stride is under `LEAST_GAP`, but for 1."""
        alone = self.stride == 1 or self.stride > LEAST_GAP
        return self.key_spans(query_start, query_end, key_length) if alone else ()

    def some(self, queries: Edges, keys: Edges) -> np.ndarray:
        """See `CellPattern.some`."""
        del queries
        return multiples(self.stride, *keys) > 0

    def every(self, queries: Edges, keys: Edges) -> np.ndarray:
        """See `CellPattern.every`."""
        del queries
        return multiples(self.stride, *keys) == keys[1] - keys[0]

    def phases(self, queries: range, key_starts: np.ndarray, width: int) -> np.ndarray:
        """See `Pattern.phases`."""
        del queries, width
        return key_starts % self.stride

    def keys_seen(self, query_Q: np.ndarray, first_Q: np.ndarray, last_Q: np.ndarray) -> np.ndarray:
        """See `Pattern.keys_seen`."""
        del query_Q
        return multiples(self.stride, first_Q, last_Q)
