"""What every sparsity pattern is: a rule that says which (query, key) pairs are visible.

A pattern knows nothing of heads or dtypes: it speaks of absolute token positions. When there are
more keys than queries (a KV cache), the caller adds the position of the first query before asking.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
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

ENDLESS = 2**62
"""One past the last key of a run that has no end."""

LEAST_GAP = 64
"""Keys between two spans, at least, where a rule leaves small gaps: to read fewer costs less than one
more tile. A block of our kernels is no longer."""

UNLIKE = -1
"""A phase that equals none, not even itself."""

Numbers = np.ndarray | int

_PAIRS_AT_A_TIME = 2**22


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
        shown = f"{self.key} ({inside})" if inside else self.key
        return shown.replace("_", " ")

    @abstractmethod
    def visible(self, query_index: Tensor, key_index: Tensor) -> Tensor:
        """Whether each query may attend to each key.

        Args:
            query_index: Absolute positions, any integer shape that broadcasts with `key_index`.
            key_index: Absolute positions.

        Returns:
            bool, of the broadcast shape.
        """

    def on(self, device: torch.device) -> "Pattern":
        """The same pattern for a compiler: what it looks up, if anything, is on the device already."""
        del device
        return self

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

    def phases(self, queries: range, key_starts: np.ndarray, width: int) -> np.ndarray:
        """Numbers that tell blocks with the same pairs, so that one mask serves many.

        Two blocks of as many queries and of `width` keys, in any two rows of blocks, hold the same
        pairs where their numbers are equal and not UNLIKE. By default every block stands alone.

        Args:
            queries: Absolute positions of a row of blocks.
            key_starts: int64 `[blocks]`, the first key of each.
            width: Keys of a block.

        Returns:
            int64 `[blocks]`, 0 or more, or UNLIKE.
        """
        del queries, width
        return np.full(len(key_starts), UNLIKE, np.int64)

    def keys_seen(self, query_Q: np.ndarray, first_Q: np.ndarray, last_Q: np.ndarray) -> np.ndarray:
        """How many keys j with `first <= j < last` each query sees.

        Args:
            query_Q: int64, absolute positions.
            first_Q: int64, 0 or more.
            last_Q: int64; where it is not above `first_Q` there are none.

        Returns:
            int64 `[Q]`.
        """
        counts_Q = np.zeros(len(query_Q), np.int64)
        key_K = torch.arange(int(max(last_Q.max(initial=0), 0)))
        step = max(_PAIRS_AT_A_TIME // max(len(key_K), 1), 1)
        for at in range(0, len(query_Q), step):
            part = slice(at, at + step)
            query, first, last = (
                torch.from_numpy(each[part])[:, None] for each in (query_Q, first_Q, last_Q)
            )
            seen = self.visible(query, key_K[None]) & (key_K >= first) & (key_K < last)
            counts_Q[part] = seen.sum(-1).numpy()
        return counts_Q

    def check_lengths(self, queries: range, key_length: int) -> None:
        """Raises InvalidCall where the rule is made for other positions; most are for any."""
        del queries, key_length

    def block_mask(
        self, query_length: int, key_length: int, block: int, *, query_offset: int | None = None
    ) -> np.ndarray:
        """The mask by blocks of `block` × `block` pairs.

        Returns:
            uint8 `[ceil(query_length / block), ceil(key_length / block)]` of EMPTY, PARTIAL, FULL.

        Raises:
            InvalidCall: See `check_lengths`.
        """
        queries = self.queries(query_length, key_length, query_offset)
        rows, columns = -(-query_length // block), -(-key_length // block)
        mask = np.full((rows, columns), EMPTY, np.uint8)
        starts = np.arange(columns) * block
        key_1K = torch.arange(key_length)[None]
        for row in range(rows):
            some = queries[row * block : (row + 1) * block]
            query_Q1 = torch.arange(some.start, some.stop)[:, None]
            seen = self.visible(query_Q1, key_1K).expand(len(some), key_length).numpy()
            mask[row, np.logical_or.reduceat(seen.any(0), starts)] = PARTIAL
            mask[row, np.logical_and.reduceat(seen.all(0), starts)] = FULL
        return mask

    def kept_blocks(
        self, query_length: int, key_length: int, block: int, *, query_offset: int | None = None
    ) -> int:
        """How many blocks of `block_mask` hold a visible pair.

        Raises:
            InvalidCall: See `check_lengths`.
        """
        mask = self.block_mask(query_length, key_length, block, query_offset=query_offset)
        return int(np.count_nonzero(mask != EMPTY))

    def kept_pairs(
        self, query_length: int, key_length: int, *, query_offset: int | None = None
    ) -> int:
        """How many (query, key) pairs are visible.

        Raises:
            InvalidCall: See `check_lengths`.
        """
        queries = self.queries(query_length, key_length, query_offset)
        query_Q = np.arange(queries.start, queries.stop)
        first_Q, last_Q = np.zeros_like(query_Q), np.full_like(query_Q, key_length)
        return int(self.keys_seen(query_Q, first_Q, last_Q).sum())

    def kept_share(
        self, query_length: int, key_length: int, *, query_offset: int | None = None
    ) -> float:
        """Visible pairs over all pairs, 0 to 1."""
        kept = self.kept_pairs(query_length, key_length, query_offset=query_offset)
        return kept / (query_length * key_length)

    def queries(self, query_length: int, key_length: int, query_offset: int | None) -> range:
        """The absolute positions of these queries, checked with `check_lengths`."""
        offset = key_length - query_length if query_offset is None else query_offset
        found = range(offset, offset + query_length)
        self.check_lengths(found, key_length)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanPattern(Pattern):
    """A pattern in which each query sees a few intervals of keys that move with the query.

    Subclasses promise that `key_spans` and `full_key_spans` are tight for every range of queries,
    so the block mask needs no look at single pairs.
    """

    @abstractmethod
    def runs(self, query_Q: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """The keys that each query sees, as disjoint runs from `first` to before `last`.

        Args:
            query_Q: int64, absolute positions.

        Returns:
            `(first, last)` a run, int64 `[Q]` or numbers that broadcast; empty where `last` is not
            above `first`. Runs may go below 0 and past the last key.
        """

    def keys_seen(self, query_Q: np.ndarray, first_Q: np.ndarray, last_Q: np.ndarray) -> np.ndarray:
        """See `Pattern.keys_seen`."""
        counts_Q = np.zeros(len(query_Q), np.int64)
        for first, last in self.runs(query_Q):
            counts_Q += overlap(first, last, first_Q, last_Q)
        return counts_Q

    def block_mask(
        self, query_length: int, key_length: int, block: int, *, query_offset: int | None = None
    ) -> np.ndarray:
        """See `Pattern.block_mask`."""
        queries = self.queries(query_length, key_length, query_offset)
        rows, columns = -(-query_length // block), -(-key_length // block)
        mask = np.full((rows, columns), EMPTY, np.uint8)
        for row in range(rows):
            some = queries[row * block : (row + 1) * block]
            for first, last in self.key_spans(some.start, some.stop, key_length):
                mask[row, first // block : -(-last // block)] = PARTIAL
            for first, last in self.full_key_spans(some.start, some.stop, key_length):
                reach = columns if last == key_length else last // block
                mask[row, -(-first // block) : reach] = FULL
        return mask

    def kept_blocks(
        self, query_length: int, key_length: int, block: int, *, query_offset: int | None = None
    ) -> int:
        """See `Pattern.kept_blocks`; no mask is made where each query sees one run of keys."""
        queries = self.queries(query_length, key_length, query_offset)
        starts = np.arange(queries.start, queries.stop, block)
        runs = self.runs(starts)
        if len(runs) > 1:
            # Not super(), which a dataclass with slots makes anew and does not know.
            return Pattern.kept_blocks(
                self, query_length, key_length, block, query_offset=query_offset
            )
        # Runs move with the query and leave no gap, so those of a row of blocks are one together.
        (_, last), *_ = self.runs(np.minimum(starts + block, queries.stop) - 1)
        first, last = np.maximum(runs[0][0], 0), np.minimum(last, key_length)
        return int(np.where(last > first, -(-last // block) - first // block, 0).sum())


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


def repeated(starts: range, width: int, key_length: int) -> Spans:
    """`width` keys from each of the starts on, as spans; joined where small gaps lie between."""
    if starts and starts.step - width < LEAST_GAP:
        return spans([(starts[0], starts[-1] + width)], key_length)
    return spans(((start, start + width) for start in starts), key_length)


def overlap(first: Numbers, last: Numbers, other_first: Numbers, other_last: Numbers) -> np.ndarray:
    """How many positions two half-open intervals share."""
    return np.maximum(np.minimum(last, other_last) - np.maximum(first, other_first), 0)


def multiples(step: int, first: Numbers, last: Numbers) -> np.ndarray:
    """How many multiples of `step` lie in the half-open interval."""
    return np.maximum(-(-last // step) - -(-first // step), 0)


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
