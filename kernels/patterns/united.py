"""Two patterns together: a pair is visible where one of them says so."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from attnscope.kernels.patterns.combination import Combination, inside_runs
from attnscope.kernels.patterns.pattern import UNLIKE, Pattern, SpanPattern, Spans, spans


@dataclass(frozen=True, slots=True, kw_only=True)
class United(Combination):
    """What is near a query, and what is far from it, as families from sparse transformers are."""

    _joined: ClassVar[np.ufunc] = np.maximum

    @property
    @abstractmethod
    def near(self) -> SpanPattern:
        """The part of a few runs of keys a query."""

    @property
    @abstractmethod
    def far(self) -> Pattern:
        """The other part; it may overlap the first."""

    @property
    def parts(self) -> tuple[Pattern, Pattern]:
        """See `Combination.parts`."""
        return self.near, self.far

    def visible(self, query_index: Tensor, key_index: Tensor) -> Tensor:
        """See `Pattern.visible`."""
        near = self.near.visible(query_index, key_index)
        return near | self.far.visible(query_index, key_index)

    def key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """See `Pattern.key_spans`."""
        asked = query_start, query_end, key_length
        return spans([*self.near.key_spans(*asked), *self.far.key_spans(*asked)], key_length)

    def full_key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """See `Pattern.full_key_spans`."""
        asked = query_start, query_end, key_length
        both = [*self.near.full_key_spans(*asked), *self.far.full_key_spans(*asked)]
        return spans(both, key_length)

    def phases(self, queries: range, key_starts: np.ndarray, width: int) -> np.ndarray:
        """See `Pattern.phases`: those of the far part, away from the near one."""
        found = self.far.phases(queries, key_starts, width)
        end = int(key_starts.max(initial=0)) + width
        for first, last in self.near.key_spans(queries.start, queries.stop, end):
            found[(key_starts < last) & (key_starts + width > first)] = UNLIKE
        return found

    def keys_seen(self, query_Q: np.ndarray, first_Q: np.ndarray, last_Q: np.ndarray) -> np.ndarray:
        """See `Pattern.keys_seen`: those of both parts, less those counted twice."""
        asked = query_Q, first_Q, last_Q
        twice_Q = inside_runs(self.near, self.far, *asked)
        return self.near.keys_seen(*asked) + self.far.keys_seen(*asked) - twice_Q
