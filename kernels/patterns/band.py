"""Patterns in which each query sees one run of keys around its own position."""

from dataclasses import dataclass

from attnscope.kernels.patterns.causal import Causal
from attnscope.kernels.patterns.full import Full
from attnscope.kernels.patterns.local import Local
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.patterns.sliding_window import SlidingWindow

EVERYTHING = 2**30
"""More keys than any sequence has, and small enough that a position plus it is an int32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Query i sees the keys j with i − before ≤ j ≤ i + after: two numbers for a kernel.

    Attributes:
        before: Keys seen before the query's own position; `EVERYTHING` for no bound.
        after: Keys seen after it.
    """

    before: int
    after: int

    def keys(self, query_offset: int, query_length: int, key_length: int) -> range:
        """The keys that some query sees, of queries from the absolute position `query_offset`."""
        last_query = query_offset + query_length - 1
        end = min(last_query + self.after + 1, key_length)
        return range(min(max(query_offset - self.before, 0), end), end)


def band(pattern: Pattern) -> Band | None:
    """The pattern as a band, or None where it is none."""
    match pattern:
        case Full():
            return Band(before=EVERYTHING, after=EVERYTHING)
        case Causal():
            return Band(before=EVERYTHING, after=0)
        case SlidingWindow():
            return Band(before=pattern.window - 1, after=0)
        case Local():
            return Band(before=pattern.reach, after=pattern.reach)
    return None
