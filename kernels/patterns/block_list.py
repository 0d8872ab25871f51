"""Blocks of keys listed for each block of queries, as they were chosen for a head."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import gcd
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnscope.kernels.errors import UnknownPattern
from attnscope.kernels.patterns.cell_pattern import CellPattern, Edges
from attnscope.kernels.patterns.lookup import Lookup, placed_lookup
from attnscope.kernels.patterns.pattern import UNLIKE, Spans, require_integer, spans

_MOST_BITS = 62


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockList(CellPattern):
    """Query block i // block sees the key blocks of its row (MInference, arXiv 2407.02490 §3.2).

    It was made for a prompt: queries past the last row see every key, as MInference decodes densely.

    Attributes:
        block: Tokens of a block.
        rows: The key blocks of each block of queries; any sequences, kept as sorted tuples.
    """

    block: int
    rows: tuple[tuple[int, ...], ...]
    _columns: int = field(init=False, repr=False, compare=False)
    _seen_N: Lookup = field(init=False, repr=False, compare=False)
    _table_IJ: np.ndarray = field(init=False, repr=False, compare=False)
    _before_IJ: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_integer("block", self.block, least=1)
        object.__setattr__(self, "rows", _rows(self.rows))
        columns = 1 + max((row[-1] for row in self.rows if row), default=0)
        # One more row and column: whatever lies past the list.
        table_IJ = np.zeros((len(self.rows) + 1, columns + 1), np.bool_)
        for number, row in enumerate(self.rows):
            table_IJ[number, list(row)] = True
        table_IJ[-1] = True
        chosen = torch.from_numpy(np.flatnonzero(table_IJ))
        object.__setattr__(self, "_columns", columns)
        object.__setattr__(self, "_seen_N", Lookup.of(chosen))
        object.__setattr__(self, "_table_IJ", table_IJ)
        before_IJ = np.pad(table_IJ.astype(np.int32), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
        object.__setattr__(self, "_before_IJ", before_IJ)

    @property
    def key(self) -> str:
        """See `Pattern.key`."""
        return "block_list"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """See `Pattern.parameters`."""
        return {"block": self.block, "rows": self.rows}

    @property
    def title(self) -> str:
        """How many blocks: they may be thousands."""
        return f"block list (block {self.block}, {sum(map(len, self.rows))} blocks)"

    def on(self, device: torch.device) -> "BlockList":
        """See `Pattern.on`."""
        return placed_lookup(self, "_seen_N", device)

    def visible(self, query_index: Tensor, key_index: Tensor) -> Tensor:
        """See `Pattern.visible`; queries before the first are taken for it."""
        row = (query_index // self.block).clamp(0, len(self.rows))
        column = (key_index // self.block).clamp(0, self._columns)
        return self._seen_N.at(row * (self._columns + 1) + column)

    def key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """See `Pattern.key_spans`; tight."""
        return self._spans(np.logical_or.reduce(self._rows_of(query_start, query_end)), key_length)

    def full_key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """See `Pattern.full_key_spans`; tight."""
        return self._spans(np.logical_and.reduce(self._rows_of(query_start, query_end)), key_length)

    def some(self, queries: Edges, keys: Edges) -> np.ndarray:
        """See `CellPattern.some`."""
        return self._touched(queries, keys)[0] > 0

    def every(self, queries: Edges, keys: Edges) -> np.ndarray:
        """See `CellPattern.every`."""
        seen, there = self._touched(queries, keys)
        return seen == there

    def phases(self, queries: range, key_starts: np.ndarray, width: int) -> np.ndarray:
        """See `Pattern.phases`: one bit for each square that the list does not divide."""
        down, right = gcd(self.block, len(queries)), gcd(self.block, width)
        bits = len(queries) // down * (width // right)
        if bits > _MOST_BITS or queries.start % down:
            return super(BlockList, self).phases(queries, key_starts, width)
        row_S = self._row(np.arange(queries.start, queries.stop, down))
        column_CS = self._column(key_starts[:, None] + np.arange(0, width, right))
        seen_CB = self._table_IJ[row_S[:, None, None], column_CS].swapaxes(0, 1).reshape(-1, bits)
        return np.where(key_starts % right == 0, seen_CB @ (1 << np.arange(bits)), UNLIKE)

    def keys_seen(self, query_Q: np.ndarray, first_Q: np.ndarray, last_Q: np.ndarray) -> np.ndarray:
        """See `Pattern.keys_seen`."""
        row_Q = self._row(query_Q)
        last_Q = np.maximum(first_Q, last_Q)
        return self._seen_before(row_Q, last_Q) - self._seen_before(row_Q, first_Q)

    def _row(self, query: np.ndarray) -> np.ndarray:
        return (query // self.block).clip(0, len(self._table_IJ) - 1)

    def _column(self, key: np.ndarray) -> np.ndarray:
        return (key // self.block).clip(0, self._table_IJ.shape[1] - 1)

    def _rows_of(self, query_start: int, query_end: int) -> np.ndarray:
        first, last = self._row(np.array([query_start, query_end - 1]))
        return self._table_IJ[first : last + 1]

    def _spans(self, seen_J: np.ndarray, key_length: int) -> Spans:
        ends = [(at + 1) * self.block for at in range(len(seen_J) - 1)]
        blocks = zip(range(0, key_length, self.block), [*ends, key_length], strict=False)
        return spans((each for each, seen in zip(blocks, seen_J, strict=False) if seen), key_length)

    def _touched(self, queries: Edges, keys: Edges) -> tuple[np.ndarray, np.ndarray]:
        """How many of the list's blocks in each rectangle are seen, and how many there are."""
        top, bottom = self._row(queries[0]), self._row(queries[1] - 1) + 1
        left, right = self._column(keys[0]), self._column(keys[1] - 1) + 1
        before_IJ = self._before_IJ
        tall = before_IJ[bottom, right] - before_IJ[bottom, left]
        return tall - before_IJ[top, right] + before_IJ[top, left], (bottom - top) * (right - left)

    def _seen_before(self, row_Q: np.ndarray, key_Q: np.ndarray) -> np.ndarray:
        """How many keys before this one a query of the row sees."""
        column_Q = self._column(key_Q)
        whole_Q = self._before_IJ[row_Q + 1, column_Q] - self._before_IJ[row_Q, column_Q]
        inside_Q = self._table_IJ[row_Q, column_Q] * (key_Q - column_Q * self.block)
        return whole_Q.astype(np.int64) * self.block + inside_Q


def _rows(given: object) -> tuple[tuple[int, ...], ...]:
    if not isinstance(given, Sequence) or not given:
        raise UnknownPattern(f"rows must be a list of key blocks for each block, got {given!r}.")
    for row in given:
        if not isinstance(row, Sequence):
            raise UnknownPattern(f"every row must be a list of key blocks, got {row!r}.")
        for column in row:
            require_integer("every key block", column, least=0)
    return tuple(tuple(sorted(set(row))) for row in given)
