"""What every sparsity pattern is: a rule that says which (query, key) pairs are visible.

A pattern knows nothing of heads or dtypes: it speaks of absolute token positions. When there are
more keys than queries (a KV cache), the caller adds the position of the first query before asking.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnscope.kernels.errors import UnknownPattern

EMPTY, PARTIAL, FULL = 0, 1, 2
"""Values of a block mask: no pair of the block is visible, some are, all are."""

Spans = tuple[tuple[int, int], ...]
"""Half-open, sorted, disjoint intervals of key positions that do not touch one another."""

Rule = Callable[[Tensor, Tensor], Tensor]
"""`Pattern.visible`, or what says the same: absolute query and key positions -> bool."""

_ROWS_AT_A_TIME = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern(ABC):
    """Which (query, key) pairs may attend.

    Subclasses are frozen dataclasses whose fields are the pattern's parameters. They must give
    `visible`; they override the other methods where there is a closed form, and the tests hold the
    closed form against a double loop.

    `query_offset` is everywhere the absolute position of the first query; None aligns the last
    query with the last key (bottom right), which is `key_length - query_length`.
    """

    @property
    @abstractmethod
    def key(self) -> str:
        """The name of the family, as in `pattern(key, **parameters)` and in links."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The parameters that make this pattern, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def title(self) -> str:
        """The pattern in a few words, with its parameters, for people."""
        inside = ", ".join(f"{name} {value}" for name, value in self.parameters.items())
        name = self.key.replace("_", " ")
        return f"{name} ({inside})" if inside else name

    @abstractmethod
    def visible(self, query_index: Tensor, key_index: Tensor) -> Tensor:
        """Whether each query may attend to each key.

        Args:
            query_index: Absolute positions, any integer shape that broadcasts with `key_index`.
            key_index: Absolute positions.

        Returns:
            bool, of the broadcast shape.
        """

    def rule(self, device: torch.device) -> Rule:
        """`visible` for a compiler: the tensors that it reads, if any, are on the device already."""
        del device
        return self.visible

    def key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """The keys that *some* query of `[query_start, query_end)` sees: what a kernel must visit.

        A superset is allowed (the rule itself is applied inside), a subset never is.
        """
        del query_start, query_end
        return ((0, key_length),)

    def full_key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """Keys that *every* query of `[query_start, query_end)` sees: no rule to apply there.

        A subset is allowed, a superset never is.
        """
        del query_start, query_end, key_length
        return ()

    def block_mask(
        self, query_length: int, key_length: int, block: int, *, query_offset: int | None = None
    ) -> np.ndarray:
        """The mask by blocks of `block` × `block` pairs.

        Returns:
            uint8 `[ceil(query_length / block), ceil(key_length / block)]` of EMPTY, PARTIAL, FULL.
        """
        offset = key_length - query_length if query_offset is None else query_offset
        rows, columns = -(-query_length // block), -(-key_length // block)
        mask = np.full((rows, columns), EMPTY, np.uint8)
        for row in range(rows):
            start, end = row * block, min((row + 1) * block, query_length)
            seen = _seen(self, range(start + offset, end + offset), range(key_length))
            for column in range(columns):
                cell = seen[:, column * block : (column + 1) * block]
                mask[row, column] = FULL if cell.all() else PARTIAL if cell.any() else EMPTY
        return mask

    def kept_pairs(
        self, query_length: int, key_length: int, *, query_offset: int | None = None
    ) -> int:
        """How many (query, key) pairs are visible."""
        offset = key_length - query_length if query_offset is None else query_offset
        kept = 0
        for start in range(offset, offset + query_length, _ROWS_AT_A_TIME):
            end = min(start + _ROWS_AT_A_TIME, offset + query_length)
            for first, last in self.key_spans(start, end, key_length):
                kept += int(_seen(self, range(start, end), range(first, last)).sum())
        return kept


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanPattern(Pattern):
    """A pattern in which each query sees a few intervals of keys that move with the query.

    Subclasses promise that `key_spans` and `full_key_spans` are tight for every range of queries,
    so the block mask needs no look at single pairs.
    """

    def block_mask(
        self, query_length: int, key_length: int, block: int, *, query_offset: int | None = None
    ) -> np.ndarray:
        """See `Pattern.block_mask`."""
        offset = key_length - query_length if query_offset is None else query_offset
        rows, columns = -(-query_length // block), -(-key_length // block)
        mask = np.full((rows, columns), EMPTY, np.uint8)
        for row in range(rows):
            start, end = offset + row * block, offset + min((row + 1) * block, query_length)
            for first, last in self.key_spans(start, end, key_length):
                mask[row, first // block : -(-last // block)] = PARTIAL
            for first, last in self.full_key_spans(start, end, key_length):
                reach = columns if last == key_length else last // block
                mask[row, -(-first // block) : reach] = FULL
        return mask


def spans(intervals: Iterable[tuple[int, int]], key_length: int) -> Spans:
    """These intervals within `[0, key_length)`, sorted; those that overlap or touch are joined."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted((max(a, 0), min(b, key_length)) for a, b in intervals):
        if first >= last:
            continue
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return tuple(joined)


def pairs_up_to(
    shift: int, query_length: int, key_length: int, query_offset: int | None = None
) -> int:
    """How many pairs obey `j <= i + shift` with `0 <= j < key_length`; the sum in closed form.

    Args:
        shift: 0 counts the causal triangle, −w what a window of w keys leaves out of it.
        query_length: Queries i from `query_offset` on.
        key_length: Keys.
        query_offset: See `Pattern`.
    """
    offset = key_length - query_length if query_offset is None else query_offset
    # Query i sees clamp(i + shift + 1, 0, key_length) keys: nothing, then a ramp, then all.
    first, last = offset + shift + 1, offset + shift + query_length
    ramp_start, ramp_end = max(first, 1), min(last, key_length)
    ramp = max(ramp_end - ramp_start + 1, 0) * (ramp_start + ramp_end) // 2
    return ramp + max(last - max(first, key_length + 1) + 1, 0) * key_length


def require_integer(name: str, value: object, *, least: int) -> None:
    """Raises UnknownPattern unless the parameter is an integer of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UnknownPattern(f"{name} must be an integer of at least {least}, got {value!r}.")


def _seen(pattern: Pattern, queries: range, keys: range) -> Tensor:
    query_Q = torch.arange(queries.start, queries.stop)
    key_K = torch.arange(keys.start, keys.stop)
    return pattern.visible(query_Q[:, None], key_K[None, :]).expand(len(queries), len(keys))
