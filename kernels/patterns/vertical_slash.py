"""Columns that everybody sees, and diagonals: what most heads of long prompts look like."""

from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnscope.kernels.errors import UnknownPattern
from attnscope.kernels.patterns.cell_pattern import (
    CellPattern,
    Edges,
    distances,
    mask_of_corners,
)
from attnscope.kernels.patterns.lookup import Lookup, placed_lookup
from attnscope.kernels.patterns.pattern import LEAST_GAP, UNLIKE, SpanPattern, Spans, spans
from attnscope.kernels.patterns.united import United


@dataclass(frozen=True, slots=True, kw_only=True)
class VerticalSlash(United):
    """j is one of the columns, or i − j one of the diagonals (MInference, arXiv 2407.02490 §3.2).

    Attributes:
        columns: Positions of keys that every query sees; any sequence, kept as a sorted tuple.
        diagonals: Distances i − j at which a key is seen, 0 a query's own; likewise. Negative ones
            lie after the query.
    """

    columns: tuple[int, ...]
    diagonals: tuple[int, ...]
    _near: "_Slashes" = field(init=False, repr=False, compare=False)
    _far: "_Columns" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, least in (("columns", 0), ("diagonals", None)):
            object.__setattr__(self, name, _integers(name, getattr(self, name), least))
        object.__setattr__(self, "_near", _Slashes(diagonals=self.diagonals))
        object.__setattr__(self, "_far", _Columns(columns=self.columns))

    @property
    def key(self) -> str:
        """See `Pattern.key`."""
        return "vertical_slash"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """See `Pattern.parameters`."""
        return {"columns": self.columns, "diagonals": self.diagonals}

    @property
    def title(self) -> str:
        """How many of each: they may be thousands."""
        return f"vertical slash ({len(self.columns)} columns, {len(self.diagonals)} diagonals)"

    @property
    def near(self) -> "_Slashes":
        """The diagonals."""
        return self._near

    @property
    def far(self) -> "_Columns":
        """The columns."""
        return self._far

    def keys_seen(self, query_Q: np.ndarray, first_Q: np.ndarray, last_Q: np.ndarray) -> np.ndarray:
        """See `Pattern.keys_seen`: both counts, less the crossings of columns and diagonals."""
        near, far, last_Q = self.near, self.far, np.maximum(first_Q, last_Q)
        seen_Q = near.count(query_Q - last_Q + 1, query_Q - first_Q + 1) + far.count(
            first_Q, last_Q
        )
        strips = near.strips()
        if len(self.columns) < len(strips):
            for column in self.columns:
                away_Q = query_Q - column
                inside_Q = (first_Q <= column) & (column < last_Q)
                seen_Q = seen_Q - inside_Q * near.count(away_Q, away_Q + 1)
            return seen_Q
        for nearest, furthest in strips:
            start_Q = np.maximum(query_Q - furthest, first_Q)
            end_Q = np.minimum(query_Q - nearest + 1, last_Q)
            seen_Q = seen_Q - far.count(start_Q, np.maximum(start_Q, end_Q))
        return seen_Q

    def phases(self, queries: range, key_starts: np.ndarray, width: int) -> np.ndarray:
        """See `Pattern.phases`: without columns a block goes by its distance, without diagonals by its keys."""
        away = queries.start - key_starts
        distance = np.where(away >= 0, 2 * away, -2 * away - 1)
        columns = self.far.count(key_starts, key_starts + width) > 0
        slashes = self.near.count(away - width + 1, away + len(queries)) > 0
        alone = np.where(columns, 2 * key_starts + 1, 2 * distance)
        return np.where(columns & slashes, UNLIKE, alone).astype(np.int64)

    def _unclear(
        self,
        queries: range,
        key_length: int,
        block: int,
        query_starts: np.ndarray,
        key_starts: np.ndarray,
    ) -> np.ndarray:
        """See `Combination._unclear`: the first key that is no column must be seen by diagonals alone."""
        ends = np.minimum(query_starts + block, len(queries)) + queries.start
        starts = query_starts + queries.start
        key = self.far.first_missing(key_starts)
        return self.near.count(starts - key, ends - key) == ends - starts

    def on(self, device: torch.device) -> "VerticalSlash":
        """See `Pattern.on`."""
        moved = copy(self)
        for name in ("_near", "_far"):
            object.__setattr__(moved, name, getattr(self, name).on(device))
        return moved


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slashes(SpanPattern):
    diagonals: tuple[int, ...]
    _seen_N: Lookup = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        at = torch.tensor(self.diagonals, dtype=torch.int64) - self._least + 1
        object.__setattr__(self, "_seen_N", Lookup.of(at))

    @property
    def key(self) -> str:
        return "slashes"

    @property
    def _least(self) -> int:
        return self.diagonals[0] if self.diagonals else 0

    def on(self, device: torch.device) -> "_Slashes":
        return placed_lookup(self, "_seen_N", device)

    def visible(self, query_index: Tensor, key_index: Tensor) -> Tensor:
        # From 1 on, so that whatever lies before the first diagonal is at 0, which is none.
        return self._seen_N.at(query_index - key_index - (self._least - 1))

    def key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        near = ((query_start - d, query_end - c) for c, d in self.strips())
        return spans(near, key_length)

    def full_key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        near = ((query_end - 1 - d, query_start - c + 1) for c, d in self.strips())
        return spans(near, key_length)

    def block_mask(
        self, query_length: int, key_length: int, block: int, *, query_offset: int | None = None
    ) -> np.ndarray:
        # By counts, for hundreds of diagonals are hundreds of spans a row of blocks.
        queries = self.queries(query_length, key_length, query_offset)
        return mask_of_corners(self._some, self._every, queries, key_length, block)

    def _some(self, queries: Edges, keys: Edges) -> np.ndarray:
        return self.count(*distances(queries, keys)) > 0

    def _every(self, queries: Edges, keys: Edges) -> np.ndarray:
        nearest, end = distances(queries, keys)
        return self.count(nearest, end) == end - nearest

    def count(self, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """How many diagonals lie in each interval."""
        return _count(self.diagonals, first, last)

    def runs(self, query_Q: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(query_Q - d, query_Q - c + 1) for c, d in self.strips()]

    def strips(self) -> list[tuple[int, int]]:
        """First and last of each run of diagonals side by side."""
        return [(first, end - 1) for first, end in _joined(self.diagonals)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns(CellPattern):
    columns: tuple[int, ...]
    _seen_N: Lookup = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "_seen_N", Lookup.of(torch.tensor(self.columns, dtype=torch.int64))
        )

    @property
    def key(self) -> str:
        return "columns"

    def on(self, device: torch.device) -> "_Columns":
        return placed_lookup(self, "_seen_N", device)

    def visible(self, query_index: Tensor, key_index: Tensor) -> Tensor:
        return torch.broadcast_tensors(query_index, self._seen_N.at(key_index))[1]

    def key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        del query_start, query_end
        return spans(_joined(self.columns, gap=LEAST_GAP), key_length)

    def full_key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        del query_start, query_end
        return spans(_joined(self.columns), key_length)

    def some(self, queries: Edges, keys: Edges) -> np.ndarray:
        del queries
        return self.count(*keys) > 0

    def every(self, queries: Edges, keys: Edges) -> np.ndarray:
        del queries
        return self.count(*keys) == keys[1] - keys[0]

    def keys_seen(self, query_Q: np.ndarray, first_Q: np.ndarray, last_Q: np.ndarray) -> np.ndarray:
        del query_Q
        return np.maximum(self.count(first_Q, last_Q), 0)

    def count(self, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """How many columns lie in each interval."""
        return _count(self.columns, first, last)

    def first_missing(self, key: np.ndarray) -> np.ndarray:
        """The first key, from each of these on, that is no column."""
        starts, ends = np.array([(0, 0), *_joined(self.columns)]).T
        run = np.searchsorted(starts, key, side="right") - 1
        return np.maximum(key, ends[run])


def _count(sorted_numbers: tuple[int, ...], first: np.ndarray, last: np.ndarray) -> np.ndarray:
    return np.searchsorted(sorted_numbers, last) - np.searchsorted(sorted_numbers, first)


def _joined(sorted_numbers: tuple[int, ...], *, gap: int = 1) -> list[tuple[int, int]]:
    """Runs of numbers less than `gap` apart from their neighbours, or next to them, half open."""
    runs: list[tuple[int, int]] = []
    for number in sorted_numbers:
        if runs and number - runs[-1][1] < gap:
            runs[-1] = (runs[-1][0], number + 1)
        else:
            runs.append((number, number + 1))
    return runs


def _integers(name: str, given: object, least: int | None) -> tuple[int, ...]:
    numbers: set[int] = set()
    for number in given if isinstance(given, Iterable) else [given]:
        if not isinstance(number, int) or isinstance(number, bool):
            raise UnknownPattern(f"{name} must be integers, got {number!r}.")
        if least is not None and number < least:
            raise UnknownPattern(f"{name} must be {least} or more, got {number}.")
        numbers.add(number)
    return tuple(sorted(numbers))
