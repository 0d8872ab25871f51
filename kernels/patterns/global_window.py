"""A window, and first tokens that see everything and are seen by all."""

from abc import abstractmethod
from typing import TypeVar

import numpy as np
from torch import Tensor

from attnscope.kernels.patterns.pattern import ENDLESS, SpanPattern, Spans, spans

Index = TypeVar("Index", int, np.ndarray, Tensor)


class GlobalWindow(SpanPattern):
    """|i // grain − j // grain| ≤ reach, or i < global_tokens, or j < global_tokens.

    What Longformer is, token by token, and BigBird but for its random blocks.

    Attributes:
        global_tokens: How many of the first tokens are global.
    """

    __slots__ = ()

    global_tokens: int

    @property
    @abstractmethod
    def grain(self) -> int:
        """Tokens of a block, which sees and is seen as one."""

    @property
    @abstractmethod
    def reach(self) -> int:
        """Blocks seen on each side of the query's own."""

    def visible(self, query_index: Tensor, key_index: Tensor) -> Tensor:
        """See `Pattern.visible`."""
        # By each query's first and last key: a distance would be a number a pair.
        first, end = self._first_key(query_index), self._end_key(query_index)
        near = (key_index >= first) & (key_index < end)
        return near | (query_index < self.global_tokens) | (key_index < self.global_tokens)

    def key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """See `Pattern.key_spans`; tight."""
        if query_start < self.global_tokens:
            return spans([(0, key_length)], key_length)
        near = self._first_key(query_start), self._end_key(query_end - 1)
        return spans([(0, self.global_tokens), near], key_length)

    def full_key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """See `Pattern.full_key_spans`; tight."""
        if query_end <= self.global_tokens:
            return spans([(0, key_length)], key_length)
        first_local = max(query_start, self.global_tokens)
        near = self._first_key(query_end - 1), self._end_key(first_local)
        return spans([(0, self.global_tokens), near], key_length)

    def runs(self, query_Q: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """See `SpanPattern.runs`."""
        ahead_Q = np.where(query_Q < self.global_tokens, ENDLESS, self.global_tokens)
        near_Q = np.maximum(self._first_key(query_Q), ahead_Q)
        return [(np.zeros_like(query_Q), ahead_Q), (near_Q, self._end_key(query_Q))]

    def _first_key(self, query: Index) -> Index:
        return (query // self.grain - self.reach) * self.grain

    def _end_key(self, query: Index) -> Index:
        return (query // self.grain + self.reach + 1) * self.grain
