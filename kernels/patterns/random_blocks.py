"""Blocks of keys drawn at random for each block of queries, the same on every machine."""

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from attnscope.kernels.patterns.pattern import (
    EMPTY,
    FULL,
    PARTIAL,
    Pattern,
    Spans,
    overlap,
    spans,
)

MOST_SEED = 2**32 - 1

_WORD = 0xFFFFFFFF
_A_BLOCK, _A_DRAW = 0x61C88647, 0xC2B2AE35
"""What a block and a draw add to the number that is hashed; odd, and no small multiple of each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomBlocks(Pattern):
    """What `bigbird` sees far away; no family of its own.

    Query block I sees `draws` different blocks out of those from `first` to I − behind, or all of these
    if they are fewer.

    Attributes:
        draws: Blocks drawn for each block of queries.
        block: Tokens of a block.
        first: The first block that may be drawn.
        behind: How far before a query's block the last one is that may be drawn, 1 or more.
        seed: Of the draw, 0 to `MOST_SEED`.
    """

    draws: int
    block: int
    first: int
    behind: int
    seed: int

    @property
    def key(self) -> str:
        """See `Pattern.key`."""
        return "random_blocks"

    def visible(self, query_index: Tensor, key_index: Tensor) -> Tensor:
        """See `Pattern.visible`."""
        key_block = key_index // self.block
        _, seen = torch.broadcast_tensors(query_index, key_block < 0)
        for drawn in self.drawn(query_index // self.block):
            seen = seen | (key_block == drawn)
        return seen

    def drawn(self, query_block: Tensor) -> list[Tensor]:
        """The blocks drawn for each block of queries, int64; −1 where there are no more.

        Sampling without replacement as R. Floyd does it (Bentley and Floyd, CACM 30(9), 1987), with
        a hash of the block for a random number: nothing is kept, so compilers can trace it.
        """
        query_block = query_block.long()
        drawn: list[Tensor] = []
        for draw in range(self.draws):
            # A place in the list of candidates; the last one where the place was drawn before.
            last = query_block - self.behind - self.first - (self.draws - 1 - draw)
            bits = _scrambled(query_block * _A_BLOCK + (draw * _A_DRAW + self.seed))
            place = bits % (last.clamp(min=0) + 1)
            for earlier in drawn:
                place = torch.where(place + self.first == earlier, last, place)
            drawn.append(torch.where(last >= 0, place + self.first, -1))
        return drawn

    def key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """See `Pattern.key_spans`; tight."""
        first, last = query_start // self.block, (query_end - 1) // self.block
        found = {
            each for drawn in self.drawn(torch.arange(first, last + 1)) for each in drawn.tolist()
        }
        return spans(((each * self.block, (each + 1) * self.block) for each in found), key_length)

    def full_key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """See `Pattern.full_key_spans`; what queries of several blocks have in common is left out."""
        if query_start // self.block != (query_end - 1) // self.block:
            return ()
        return self.key_spans(query_start, query_end, key_length)

    def block_mask(
        self, query_length: int, key_length: int, block: int, *, query_offset: int | None = None
    ) -> np.ndarray:
        """See `Pattern.block_mask`: from the area of each block that the drawn ones cover."""
        queries = self.queries(query_length, key_length, query_offset)
        rows, columns = -(-query_length // block), -(-key_length // block)
        mask = np.full((rows, columns), EMPTY, np.uint8)
        drawn = self._drawn_by(range(queries.start // self.block, queries.stop // self.block + 1))
        query_R, key_R = (each * self.block for each in drawn)
        # Each drawn block is a rectangle of pairs, over as many cells of the mask as it is long.
        cells, areas = [], []
        for down, right in product(range(-(-self.block // block) + 1), repeat=2):
            row_R, column_R = (query_R - queries.start) // block + down, key_R // block + right
            height_R, width_R = (
                overlap(start_R, start_R + self.block, *_edges(index_R, block, whole))
                for start_R, index_R, whole in (
                    (query_R - queries.start, row_R, query_length),
                    (key_R, column_R, key_length),
                )
            )
            some = (row_R >= 0) & (height_R * width_R > 0)
            cells.append((row_R * columns + column_R)[some])
            areas.append((height_R * width_R)[some])
        cell_C, which = np.unique(np.concatenate(cells), return_inverse=True)
        covered_C = np.bincount(which, weights=np.concatenate(areas), minlength=len(cell_C))
        row_C, column_C = np.divmod(cell_C, columns)
        height_C = np.minimum(query_length - row_C * block, block)
        width_C = np.minimum(key_length - column_C * block, block)
        mask[row_C, column_C] = np.where(covered_C == height_C * width_C, FULL, PARTIAL)
        return mask

    def keys_seen(self, query_Q: np.ndarray, first_Q: np.ndarray, last_Q: np.ndarray) -> np.ndarray:
        """See `Pattern.keys_seen`."""
        counts_Q = np.zeros(len(query_Q), np.int64)
        for drawn in self.drawn(torch.from_numpy(query_Q // self.block)):
            start_Q = drawn.numpy() * self.block
            counts_Q += overlap(start_Q, start_Q + self.block, first_Q, last_Q)
        return counts_Q

    def _drawn_by(self, blocks: range) -> tuple[np.ndarray, np.ndarray]:
        """Each of these blocks of queries with each block drawn for it, int64 `[pairs]`."""
        query_I = np.arange(blocks.start, blocks.stop)
        drawn = [each.numpy() for each in self.drawn(torch.from_numpy(query_I))]
        if not drawn:
            return query_I[:0], query_I[:0]
        query, key = np.tile(query_I, len(drawn)), np.concatenate(drawn)
        return query[key >= 0], key[key >= 0]


def _edges(index: np.ndarray, block: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    return index * block, np.minimum((index + 1) * block, length)


def _scrambled(number: Tensor) -> Tensor:
    """A hash by which 32 bits become 32 others (C. Wellons, hash-prospector).

    Its two factors are under 2³¹, so that no product leaves the 63 bits of an int64.
    """
    bits = number & _WORD
    bits = ((bits ^ (bits >> 16)) * 0x21F0AAAD) & _WORD
    bits = ((bits ^ (bits >> 15)) * 0x735A2D97) & _WORD
    return bits ^ (bits >> 15)
