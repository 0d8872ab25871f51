"""Two patterns at once: a pair is visible where both say so."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from attnscope.kernels.patterns.causal import Causal
from attnscope.kernels.patterns.chunked import Chunked
from attnscope.kernels.patterns.combination import Combination, inside_runs
from attnscope.kernels.patterns.full import Full
from attnscope.kernels.patterns.matrix import Matrix
from attnscope.kernels.patterns.pattern import UNLIKE, Pattern, SpanPattern, Spans
from attnscope.kernels.patterns.sliding_window import SlidingWindow


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed(Combination):
    """The conjunction of two patterns; built by `compose`, which drops what changes nothing.

    Attributes:
        first: The pattern that names the family.
        second: What restricts it, mostly `Causal()`.
    """

    first: Pattern
    second: Pattern

    _joined: ClassVar[np.ufunc] = np.minimum

    @property
    def parts(self) -> tuple[Pattern, Pattern]:
        """See `Combination.parts`."""
        return self.first, self.second

    @property
    def key(self) -> str:
        """The first pattern's key: `pattern(key, causal=True, ...)` gives the composition back."""
        return self.first.key

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The first pattern's parameters, and the second as one more of its name."""
        restriction = dict(self.second.parameters) or True
        return {**self.first.parameters, self.second.key: restriction}

    @property
    def title(self) -> str:
        """Both patterns in a few words."""
        return f"{self.first.title}, {self.second.title}"

    def visible(self, query_index: Tensor, key_index: Tensor) -> Tensor:
        """See `Pattern.visible`."""
        first = self.first.visible(query_index, key_index)
        return first & self.second.visible(query_index, key_index)

    def on(self, device: torch.device) -> "Composed":
        """See `Pattern.on`."""
        return Composed(first=self.first.on(device), second=self.second.on(device))

    def key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """See `Pattern.key_spans`; may hold keys that no single query sees."""
        return _common(
            self.first.key_spans(query_start, query_end, key_length),
            self.second.key_spans(query_start, query_end, key_length),
        )

    def full_key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """See `Pattern.full_key_spans`."""
        return _common(
            self.first.full_key_spans(query_start, query_end, key_length),
            self.second.full_key_spans(query_start, query_end, key_length),
        )

    def phases(self, queries: range, key_starts: np.ndarray, width: int) -> np.ndarray:
        """See `Pattern.phases`: the first pattern's, where the second hides nothing."""
        found = self.first.phases(queries, key_starts, width)
        end = int(key_starts.max(initial=0)) + width
        whole = np.zeros(len(key_starts), bool)
        for first, last in self.second.full_key_spans(queries.start, queries.stop, end):
            whole |= (key_starts >= first) & (key_starts + width <= last)
        return np.where(whole, found, UNLIKE)

    def keys_seen(self, query_Q: np.ndarray, first_Q: np.ndarray, last_Q: np.ndarray) -> np.ndarray:
        """See `Pattern.keys_seen`."""
        asked = query_Q, first_Q, last_Q
        match self.first, self.second:
            case other, SpanPattern() as part:
                return inside_runs(part, other, *asked)
            case SpanPattern() as part, other:
                return inside_runs(part, other, *asked)
        return Pattern.keys_seen(self, *asked)


def compose(first: Pattern, second: Pattern) -> Pattern:
    """The pattern that shows what both show, as simple as it can be said."""
    if isinstance(first, Full) or first == second:
        return second
    for drawn, rule in ((first, second), (second, first)):
        if isinstance(drawn, Matrix):
            return _within(drawn, rule)
    implied = isinstance(first, SlidingWindow | Chunked) and isinstance(second, Causal)
    return first if implied or isinstance(second, Full) else Composed(first=first, second=second)


def _within(drawn: Matrix, rule: Pattern) -> Matrix:
    rows, columns = (torch.arange(length) for length in drawn.matrix.shape)
    seen = rule.visible(rows[:, None], columns[None]).numpy()
    return Matrix(matrix=drawn.matrix & seen)


def _common(ones: Spans, others: Spans) -> Spans:
    return tuple(
        (max(first, start), min(last, end))
        for first, last in ones
        for start, end in others
        if max(first, start) < min(last, end)
    )
