"""Patterns made of two others, whose blocks decide most of theirs."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from attnscope.kernels.patterns.block_kinds import block_kinds, chunks
from attnscope.kernels.patterns.pattern import PARTIAL, Pattern, SpanPattern

_CELLS_AT_A_TIME, _PAIRS_AT_A_TIME = 2**20, 2**22


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination(Pattern):
    """A pair is visible where both parts say so, or where one of them does.

    A block that one part hides or shows whole needs no look at its pairs; those that both divide
    are few: along the diagonal for the causal rule, along the query's own block for stripes.
    """

    _joined: ClassVar[np.ufunc]
    """Of the parts' kinds: minimum where both must show a pair, maximum where one is enough."""

    @property
    @abstractmethod
    def parts(self) -> tuple[Pattern, Pattern]:
        """What it is made of."""

    def check_lengths(self, queries: range, key_length: int) -> None:
        """See `Pattern.check_lengths`."""
        for part in self.parts:
            part.check_lengths(queries, key_length)

    def block_mask(
        self, query_length: int, key_length: int, block: int, *, query_offset: int | None = None
    ) -> np.ndarray:
        """See `Pattern.block_mask`."""
        queries = self.queries(query_length, key_length, query_offset)
        one, other = (
            part.block_mask(query_length, key_length, block, query_offset=query_offset)
            for part in self.parts
        )
        step = max(_CELLS_AT_A_TIME // one.shape[1], 1)
        for start in range(0, len(one), step):
            strip, beside = one[start : start + step], other[start : start + step]
            rows, columns = np.nonzero((strip == PARTIAL) & (beside == PARTIAL))
            edges = (start + rows) * block, columns * block
            unclear = self._unclear(queries, key_length, block, *edges)
            rows, columns = rows[unclear], columns[unclear]
            self._joined(strip, beside, out=strip)
            for some in chunks(len(rows), _PAIRS_AT_A_TIME // block**2):
                at = rows[some], columns[some]
                placed = start + at[0], at[1]
                strip[at] = block_kinds(self, queries, key_length, block, *placed)
        return one

    def _unclear(
        self,
        queries: range,
        key_length: int,
        block: int,
        query_starts: np.ndarray,
        key_starts: np.ndarray,
    ) -> np.ndarray:
        """Which of the blocks that both parts divide may be other than divided: bool `[blocks]`.

        Args:
            queries: Absolute positions.
            key_length: Keys.
            block: Their size.
            query_starts: Of each block, int64, as an index into the queries.
            key_starts: Likewise, its first key.
        """
        del queries, key_length, block, key_starts
        return np.ones(len(query_starts), np.bool_)


def inside_runs(
    part: SpanPattern,
    other: Pattern,
    query_Q: np.ndarray,
    first_Q: np.ndarray,
    last_Q: np.ndarray,
) -> np.ndarray:
    """How many keys of `[first, last)` both patterns let each query see, int64 `[Q]`."""
    counts_Q = np.zeros(len(query_Q), np.int64)
    for first, last in part.runs(query_Q):
        both = np.maximum(first, first_Q), np.minimum(last, last_Q)
        counts_Q += other.keys_seen(query_Q, *both)
    return counts_Q
