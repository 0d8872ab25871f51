"""A rule that somebody wrote."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.patterns.block_kinds import block_kinds, chunks
from attnscope.kernels.patterns.pattern import EMPTY, FULL, PARTIAL, Pattern, Spans, spans
from attnscope.kernels.patterns.rule_bounds import MOST_POSITION, check, holds
from attnscope.kernels.patterns.rule_program import Step, carried_out, steps_of

_CELL = 64
"""Keys whose bounds are taken together; a kernel's tile is no smaller."""

_CELLS_AT_A_TIME, _PAIRS_AT_A_TIME = 2**18, 2**22
_SAMPLED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(Pattern):
    """Query i sees key j where the text says so: `i - j < 128 or j < 4`.

    The text is arithmetic and comparisons of i, j and whole numbers, as `rule_program` reads them:
    nothing of it is ever run as code. It means what Python's own evaluation of it would, for
    positions 0 to 2³¹ − 1; one that could overflow or divide by zero there is refused.

    Attributes:
        text: The rule; white space is written as single spaces.
    """

    text: str
    _steps: tuple[Step, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        steps = steps_of(self.text)
        check(steps)
        object.__setattr__(self, "text", " ".join(self.text.split()))
        object.__setattr__(self, "_steps", steps)

    @property
    def key(self) -> str:
        """See `Pattern.key`."""
        return "rule"

    @property
    def parameters(self) -> dict[str, Any]:
        """See `Pattern.parameters`."""
        return {"text": self.text}

    @property
    def title(self) -> str:
        """The text."""
        return f"rule ({self.text})"

    def check_lengths(self, queries: range, key_length: int) -> None:
        """Raises InvalidCall where a position lies outside those the rule was proven for."""
        first, last = min(queries.start, 0), max(queries.stop, key_length) - 1
        if first < 0 or last > MOST_POSITION:
            raise InvalidCall(
                f"a rule is for positions from 0 to {MOST_POSITION}, and these go from {first} to {last}.",
                "Give it as many keys as queries, or more.",
            )

    def visible(self, query_index: Tensor, key_index: Tensor) -> Tensor:
        """See `Pattern.visible`."""
        seen = carried_out(self._steps, _DOES, query_index.long(), key_index.long())
        shape = torch.broadcast_shapes(query_index.shape, key_index.shape)
        # FlexAttention asks of a single pair, and its compiler knows no expansion to no dimension.
        return seen if seen.shape == shape else seen.expand(shape)

    def key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """See `Pattern.key_spans`; by cells of keys in which the rule may hold."""
        _, some = self._cells(query_start, query_end, key_length)
        return _joined(some, key_length)

    def full_key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """See `Pattern.full_key_spans`; by cells of keys in which the rule must hold."""
        every, _ = self._cells(query_start, query_end, key_length)
        return _joined(every, key_length)

    def block_mask(
        self, query_length: int, key_length: int, block: int, *, query_offset: int | None = None
    ) -> np.ndarray:
        """See `Pattern.block_mask`: by bounds, then by a few pairs, then by all pairs of what is left."""
        queries = self.queries(query_length, key_length, query_offset)
        starts = np.arange(0, query_length, block)[:, None]
        rows = starts + queries.start, np.minimum(starts + block, query_length) - 1 + queries.start
        first = np.arange(0, key_length, block)[None]
        last = np.minimum(first + block, key_length) - 1
        mask = np.empty((len(starts), first.shape[1]), np.uint8)
        for part in chunks(len(mask), _CELLS_AT_A_TIME // first.shape[1]):
            strip = mask[part]
            every, some = holds(self._steps, (rows[0][part], rows[1][part]), (first, last))
            strip[:] = np.where(every, FULL, np.where(some, PARTIAL, EMPTY))
            unknown = np.nonzero(strip == PARTIAL)
            undecided = ~self._sampled_both(queries, key_length, block, part.start, *unknown)
            at_R, at_C = unknown[0][undecided], unknown[1][undecided]
            for few in chunks(len(at_R), _PAIRS_AT_A_TIME // block**2):
                placed = part.start + at_R[few], at_C[few]
                strip[at_R[few], at_C[few]] = block_kinds(self, queries, key_length, block, *placed)
        return mask

    def _sampled_both(
        self,
        queries: range,
        key_length: int,
        block: int,
        row: int,
        rows: np.ndarray,
        columns: np.ndarray,
    ) -> np.ndarray:
        """Whether some pairs of each block show that it is divided: one that is seen, one that is not."""
        # Positions an odd step apart, so that what repeats by twos, threes or eights is met.
        inside = np.unique(np.arange(_SAMPLED) * (block // _SAMPLED | 1) % block)
        found = np.zeros(len(rows), bool)
        for few in chunks(len(rows), _PAIRS_AT_A_TIME // len(inside) ** 2):
            query_BQ = ((row + rows[few])[:, None] * block + inside).clip(max=len(queries) - 1)
            key_BK = (columns[few][:, None] * block + inside).clip(max=key_length - 1)
            query, key = torch.from_numpy(query_BQ + queries.start), torch.from_numpy(key_BK)
            seen_BP = self.visible(query[:, :, None], key[:, None]).flatten(1).numpy()
            found[few] = seen_BP.any(1) & ~seen_BP.all(1)
        return found

    def _cells(
        self, query_start: int, query_end: int, key_length: int
    ) -> tuple[np.ndarray, np.ndarray]:
        first = np.arange(0, key_length, _CELL)
        keys = first, np.minimum(first + _CELL, key_length) - 1
        # Never the queries before the first position, of which nothing was proven.
        queries = (np.array([max(query_start, 0)]), np.array([max(query_end - 1, 0)]))
        every, some = holds(self._steps, queries, keys)
        return np.broadcast_to(every, first.shape), np.broadcast_to(some, first.shape)


def _joined(cells: np.ndarray, key_length: int) -> Spans:
    starts = np.flatnonzero(cells) * _CELL
    return spans(((int(start), int(start) + _CELL) for start in starts), key_length)


Value = Tensor | int | bool


def _smaller(a: Value, b: Value) -> Value:
    match a, b:
        case Tensor(), Tensor():
            return torch.minimum(a, b)
        case Tensor(), _:
            return a.clamp(max=b)
        case _, Tensor():
            return b.clamp(max=a)
    return min(a, b)


def _larger(a: Value, b: Value) -> Value:
    match a, b:
        case Tensor(), Tensor():
            return torch.maximum(a, b)
        case Tensor(), _:
            return a.clamp(min=b)
        case _, Tensor():
            return b.clamp(min=a)
    return max(a, b)


# Of two numbers of the text itself, Python's own arithmetic; a plain truth is turned by `^ True`.
_DOES: dict[str, Callable[..., Any]] = {
    "number": lambda number: number,
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "negative": lambda a: -a,
    "abs": abs,
    "min": _smaller,
    "max": _larger,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "not": lambda a: a ^ True,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
}
