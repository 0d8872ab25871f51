"""Which blocks of keys each block of queries visits, and what is hidden in them. No Triton, no GPU.

A plan is made once for a pattern and its lengths. Blocks that every query sees whole are listed
apart from those that the rule divides; a divided one has a mask of one bit a pair, and equal masks
(those along a window's edge, say) are held once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from attnscope.kernels.errors import UnsupportedCall
from attnscope.kernels.patterns.pattern import EMPTY, FULL, PARTIAL, UNLIKE, Pattern

MOST_MASK_BYTES = 2**26
"""What the masks of one plan may hold: a rule without structure would need n² / 8 bytes."""

WORD_KEYS = 64
"""Keys of a block at most: a row of its mask is one 64-bit word."""

_COLUMNS_AT_A_TIME = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseConfig:
    """How the block-sparse kernel cuts a call: constants of its compilation.

    Attributes:
        block_queries: Queries of a block; a multiple of `block_keys`.
        block_keys: Keys of a block, `WORD_KEYS` at most.
        num_warps: Of a program.
        num_stages: Of its pipeline, where a tile waits for its place in the list: two a tile.
    """

    block_queries: int
    block_keys: int
    num_warps: int
    num_stages: int


def sparse_config(width: int, dtype: torch.dtype, *, hopper: bool) -> SparseConfig:
    """The configuration that compiles without spilling a register.

    Args:
        width: The wider of keys and values.
        dtype: float32, float16 or bfloat16.
        hopper: Whether a multiprocessor has the 227 KiB of shared memory of compute capability 9.
    """
    if dtype == torch.float32:
        # Exact float32 products are made in registers, which hold no larger tile.
        return SparseConfig(
            block_queries=32,
            block_keys=32 if width <= 64 else 16,
            num_warps=8,
            # Tiles in flight take registers that compute capability 8.6 does not give at 128.
            num_stages=3 if width <= 64 else 1 if width <= 128 else 2,
        )
    return SparseConfig(
        block_queries=128 if hopper or width <= 64 else 64,
        block_keys=64 if width <= 128 else 32,
        num_warps=8,
        num_stages=5 if hopper and width <= 128 else 3,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BlockPlan:
    """The blocks of each row of blocks; row r has those from `starts[r]` to before `starts[r + 1]`.

    Attributes:
        order: int32 `[rows]`, rows by their number of blocks, the most first: to be started so.
        full_starts: int32 `[rows + 1]`.
        full_columns: int32, blocks of which every pair is visible, ascending in each row.
        partial_starts: int32 `[rows + 1]`.
        partial_columns: int32, blocks of which some pairs are hidden, or lie past the last key.
        partial_masks: int32, which of `masks` each of them has.
        masks: int64 `[distinct, block_queries]`: bit c of word r says whether query r of the block
            sees its key c; no bit is set past the last query or key.
    """

    order: np.ndarray
    full_starts: np.ndarray
    full_columns: np.ndarray
    partial_starts: np.ndarray
    partial_columns: np.ndarray
    partial_masks: np.ndarray
    masks: np.ndarray

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """All of them, in the order above."""
        return (
            self.order,
            self.full_starts,
            self.full_columns,
            self.partial_starts,
            self.partial_columns,
            self.partial_masks,
            self.masks,
        )

    @property
    def blocks(self) -> int:
        """Blocks that are visited."""
        return len(self.full_columns) + len(self.partial_columns)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole plan."""
        return sum(array.nbytes for array in self.arrays)


@lru_cache(maxsize=16)
def block_plan(
    pattern: Pattern,
    *,
    query_length: int,
    key_length: int,
    query_offset: int,
    block_queries: int,
    block_keys: int,
) -> BlockPlan:
    """The plan of a pattern; never holds more than a strip of pairs at a time.

    Args:
        pattern: Which pairs are visible.
        query_length: Queries.
        key_length: Keys.
        query_offset: Absolute position of the first query.
        block_queries: Queries of a block, a multiple of `block_keys`.
        block_keys: Keys of a block, `WORD_KEYS` at most.

    Raises:
        UnsupportedCall: The masks would hold more than `MOST_MASK_BYTES`.
    """
    assert block_keys <= WORD_KEYS
    assert block_queries % block_keys == 0
    kinds = _kinds(pattern, query_length, key_length, query_offset, block_queries, block_keys)
    masks = _Masks(pattern, key_length, block_queries, block_keys)
    partial_masks = [np.zeros(0, np.int32)]
    for row, columns in enumerate(np.flatnonzero(line == PARTIAL) for line in kinds):
        start = query_offset + row * block_queries
        queries = range(start, min(start + block_queries, query_offset + query_length))
        partial_masks.append(masks.of(queries, columns))
    full_starts, full_columns = _listed(kinds == FULL)
    partial_starts, partial_columns = _listed(kinds == PARTIAL)
    work = np.count_nonzero(kinds != EMPTY, axis=1)
    return BlockPlan(
        order=np.argsort(-work, kind="stable").astype(np.int32),
        full_starts=full_starts,
        full_columns=full_columns,
        partial_starts=partial_starts,
        partial_columns=partial_columns,
        partial_masks=np.concatenate(partial_masks),
        masks=masks.array,
    )


def _kinds(
    pattern: Pattern,
    query_length: int,
    key_length: int,
    query_offset: int,
    block_queries: int,
    block_keys: int,
) -> np.ndarray:
    """EMPTY, PARTIAL or FULL of each block, from the pattern's square blocks."""
    squares = pattern.block_mask(query_length, key_length, block_keys, query_offset=query_offset)
    if key_length % block_keys:
        # The kernel reads a full block without asking where the keys end.
        squares[:, -1] = np.minimum(squares[:, -1], PARTIAL)
    starts = range(0, len(squares), block_queries // block_keys)
    lowest = np.minimum.reduceat(squares, starts, axis=0)
    highest = np.maximum.reduceat(squares, starts, axis=0)
    return np.where(lowest == highest, lowest, PARTIAL)


class _Masks:
    """The masks of a plan that differ, and which of them a block has."""

    def __init__(
        self, pattern: Pattern, key_length: int, block_queries: int, block_keys: int
    ) -> None:
        self._pattern, self._key_length = pattern, key_length
        self._block_queries, self._block_keys = block_queries, block_keys
        self._found: dict[bytes, int] = {}
        self._of_phase: dict[int, int] = {}

    @property
    def array(self) -> np.ndarray:
        """int64 `[distinct, block_queries]`."""
        words = np.frombuffer(b"".join(self._found), np.int64)
        return words.reshape(-1, self._block_queries).copy()

    def of(self, queries: range, columns: np.ndarray) -> np.ndarray:
        """Which mask each of these blocks of one row has, int32 `[blocks]`.

        Raises:
            UnsupportedCall: All of them would hold more than `MOST_MASK_BYTES`.
        """
        phases, firsts, which = np.unique(
            self._phases(queries, columns), return_index=True, return_inverse=True
        )
        new = [at for at, phase in enumerate(phases) if phase not in self._of_phase]
        for at, words in zip(new, self._words(queries, columns[firsts[new]]), strict=True):
            self._of_phase[phases[at]] = self._found.setdefault(words.tobytes(), len(self._found))
        self._check_size()
        found = np.array([self._of_phase[phase] for phase in phases], np.int32)[which]
        for phase in phases[phases < 0]:
            del self._of_phase[phase]
        return found

    def _phases(self, queries: range, columns: np.ndarray) -> np.ndarray:
        """Equal where one block's mask is another's; below 0 for those that stand alone."""
        starts = columns * self._block_keys
        phases = self._pattern.phases(queries, starts, self._block_keys)
        whole = starts + self._block_keys <= self._key_length
        alike = whole & (phases != UNLIKE) & (len(queries) == self._block_queries)
        return np.where(alike, phases, -1 - np.arange(len(columns)))

    def _words(self, queries: range, columns: np.ndarray) -> Iterator[np.ndarray]:
        """The mask of each of these blocks of one row, as words."""
        query_Q1 = torch.arange(queries.start, queries.stop, dtype=torch.int32)[:, None]
        for at in range(0, len(columns), _COLUMNS_AT_A_TIME):
            some = torch.from_numpy(columns[at : at + _COLUMNS_AT_A_TIME]).int()
            keys = (some[:, None] * self._block_keys + torch.arange(self._block_keys)).flatten()
            # A rule may look positions up in a table: it is asked about none that do not exist.
            key_1K = keys.clamp(max=self._key_length - 1)[None]
            seen = self._pattern.visible(query_Q1, key_1K)
            seen = seen.expand(len(queries), len(keys)) & (keys < self._key_length)
            bits = np.zeros((len(some), self._block_queries, WORD_KEYS), np.bool_)
            shaped = seen.numpy().reshape(len(queries), len(some), self._block_keys)
            bits[:, : len(queries), : self._block_keys] = shaped.swapaxes(0, 1)
            yield from np.packbits(bits, axis=-1, bitorder="little").view("<i8")[..., 0]

    def _check_size(self) -> None:
        if len(self._found) * self._block_queries * 8 > MOST_MASK_BYTES:
            raise UnsupportedCall(
                f"Triton block-sparse: the rule {self._pattern.title!r} divides its blocks in so "
                f"many ways that their masks need more than {MOST_MASK_BYTES >> 20} MiB.",
                "Use flex or tiled, which apply the rule as they go.",
            )


def _listed(chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each row's columns start in the list, and the list."""
    starts = np.concatenate([[0], np.cumsum(np.count_nonzero(chosen, axis=1))])
    return starts.astype(np.int32), np.nonzero(chosen)[1].astype(np.int32)
