"""Patterns fitted to one head at a budget: A-shape, vertical-slash and block-sparse.

The three of MInference (arXiv 2407.02490 §3), found from the head's exact weights over all queries, where
the paper estimates them from the last 64. Two passes over the rows of the map, a block of queries at a
time; nothing of Q × K elements is held, but the sums of blocks of `BLOCKS` tokens.

Q, K positions; R queries of a block of rows, D diagonals, S numbers of sinks, I and J blocks of queries
and of keys.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from attnscope.kernels import maps
from attnscope.kernels.head import Head
from attnscope.kernels.patterns.block_list import BlockList
from attnscope.kernels.patterns.budget import Budget
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.patterns.sinks_window import SinksWindow
from attnscope.kernels.patterns.vertical_slash import VerticalSlash
from attnscope.kernels.pooling import Progress

BLOCKS = (64, 32, 16, 8)
"""Tokens of a block, the first of these of which the budget holds every query's own."""
BLOCK_PAIRS = 1 << 22
"""Pairs read at once."""
EVERY_COUNT = 16
"""Up to so many sinks or columns, every number of them is tried; of more, the powers of 2 and the most."""


def fitted(head: Head, share: float, *, progress: Progress | None = None) -> tuple[Pattern, ...]:
    """The pattern of each kind that keeps most of a head's mass, within a share of its visible pairs.

    * A-shape: `sinks_window`, with the longest window that a number of sinks leaves.
    * Vertical-slash: `vertical_slash`, of a number of columns those with most mass, and the diagonals
      with most mass a pair outside them, the query's own first.
    * Block-sparse: `block_list`, the blocks with most mass a pair, the query's own first.

    The mass of a query counts as much as that of any other; where a budget has no room for what is
    first, the kind is left out.

    Args:
        head: The head.
        share: The budget, above 0 and at most 1.
        progress: Called with the share done; it may raise to stop.

    Raises:
        InvalidCall: A budget out of range, or one that keeps no pair.
    """
    queries = range(head.query_offset, head.query_offset + head.query_length)
    budget = Budget(share=share, own=head.pattern, queries=queries, key_length=head.key_length)
    pairs = budget.pairs
    shapes = _a_shapes(budget)
    columns, blocks, shape_mass_S = _first_pass(head, shapes, _half(progress, 0.0))
    found: list[Pattern] = []
    if shapes:
        found.append(shapes[int(shape_mass_S.argmax())])
    tried = [columns.order_K[:count] for count in _counts(columns.most(pairs))]
    slashes = _second_pass(head, tried, _half(progress, 0.5))
    chosen = [
        slash.chosen(pairs - columns.pairs_of(c)) for c, slash in zip(tried, slashes, strict=True)
    ]
    total = [
        float(columns.mass_K[c].sum()) + mass for c, (_, mass) in zip(tried, chosen, strict=True)
    ]
    best = max(range(len(total)), key=total.__getitem__)
    diagonals = chosen[best][0]
    if total[best] > 0:
        found.append(VerticalSlash(columns=tuple(tried[best].tolist()), diagonals=tuple(diagonals)))
    listed = next((one for one in (each.chosen(pairs) for each in blocks) if one), None)
    return (*found, listed) if listed else tuple(found)


@dataclass(frozen=True, slots=True)
class _Columns:
    """Mass and visible pairs of each key, float64 and int64 `[K]`."""

    mass_K: Tensor
    pairs_K: Tensor

    @property
    def order_K(self) -> Tensor:
        """The keys, those with most mass first."""
        return self.mass_K.argsort(descending=True, stable=True)

    def most(self, pairs: int) -> int:
        """How many of the first in order may be kept."""
        return int((self.pairs_K[self.order_K].cumsum(0) <= pairs).sum())

    def pairs_of(self, chosen: Tensor) -> int:
        return int(self.pairs_K[chosen].sum())


@dataclass(frozen=True, slots=True)
class _Slashes:
    """Mass and pairs of each diagonal outside some columns, `[D]`; the first is `least` from its query."""

    mass_D: Tensor
    pairs_D: Tensor
    least: int

    def chosen(self, room: int) -> tuple[list[int], float]:
        """Diagonals that `room` pairs hold, and their mass; −inf where it has none for the query's own."""
        density_D = self.mass_D / self.pairs_D.clamp(min=1)
        own = -self.least
        if 0 <= own < len(density_D):
            density_D[own] = torch.inf
            if int(self.pairs_D[own]) > room:
                return [], -torch.inf
        taken_D = _filled(density_D, self.pairs_D, room)
        return (taken_D + self.least).tolist(), float(self.mass_D[taken_D].sum())


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Mass and visible pairs of each block, `[I, J]`."""

    block: int
    mass_IJ: Tensor
    pairs_IJ: Tensor

    def chosen(self, room: int) -> BlockList | None:
        """The blocks that `room` pairs hold; None where they have none for every query's own."""
        rows, columns = self.mass_IJ.shape
        density_IJ = self.mass_IJ / self.pairs_IJ.clamp(min=1)
        # The list's rows count from position 0, whatever the first query.
        own_I = torch.arange(rows)
        own_I = own_I[own_I < columns]
        density_IJ[own_I, own_I] = torch.inf
        if int(self.pairs_IJ[own_I, own_I].sum()) > room:
            return None
        kept_IJ = torch.zeros(rows * columns, dtype=torch.bool)
        kept_IJ[_filled(density_IJ.flatten(), self.pairs_IJ.flatten(), room)] = True
        listed = kept_IJ.view(rows, columns)
        return BlockList(
            block=self.block, rows=tuple(tuple(row.nonzero()[:, 0].tolist()) for row in listed)
        )


def _filled(density_N: Tensor, pairs_N: Tensor, room: int) -> Tensor:
    """What fits, the densest first; what is too large for the room left is passed over."""
    order_N = density_N.argsort(descending=True, stable=True)
    order_N = order_N[pairs_N[order_N] > 0]
    taken = []
    while len(order_N):
        count = int((pairs_N[order_N].cumsum(0) <= room).sum())
        taken.append(order_N[:count])
        room -= int(pairs_N[order_N[:count]].sum())
        order_N = order_N[count:]
        order_N = order_N[pairs_N[order_N] <= room]
    return torch.cat(taken) if taken else order_N


def _first_pass(
    head: Head, shapes: list[SinksWindow], progress: Progress | None
) -> tuple[_Columns, list[_Blocks], Tensor]:
    """Columns, blocks of every size, and the mass of each A-shape."""
    keys, end = head.key_length, head.query_offset + head.query_length
    mass_K, pairs_K = torch.zeros(keys, dtype=torch.float64), torch.zeros(keys, dtype=torch.int64)
    shape_mass_S = torch.zeros(len(shapes), dtype=torch.float64)
    blocks = [
        _Blocks(
            block,
            torch.zeros(-(-end // block), -(-keys // block), dtype=torch.float64),
            torch.zeros(-(-end // block), -(-keys // block), dtype=torch.int64),
        )
        for block in BLOCKS
    ]
    for query_R, weights_RK, seen_RK in _rows(head, progress):
        mass_K += weights_RK.sum(0)
        pairs_K += seen_RK.sum(0)
        shape_mass_S += _a_shape_mass(query_R, weights_RK, shapes)
        for each in blocks:
            row_R = query_R // each.block
            each.mass_IJ.index_add_(0, row_R, _by_blocks(weights_RK, each.block))
            each.pairs_IJ.index_add_(0, row_R, _by_blocks(seen_RK.long(), each.block))
    return _Columns(mass_K, pairs_K), blocks, shape_mass_S


def _second_pass(head: Head, tried: list[Tensor], progress: Progress | None) -> list[_Slashes]:
    """The diagonals outside of each set of columns; each set holds the one before it."""
    length, least = head.query_length + head.key_length - 1, head.query_offset - head.key_length + 1
    mass_TD = torch.zeros(len(tried), length, dtype=torch.float64)
    pairs_TD = torch.zeros(len(tried), length, dtype=torch.int64)
    # What each set takes from the diagonals beyond the one before it: of the first, which is empty, all.
    added = [now[len(before) :] for before, now in pairwise(tried)]
    for query_R, weights_RK, seen_RK in _rows(head, progress):
        at = int(query_R[0]) - head.query_offset
        part = slice(at, at + len(query_R) + head.key_length - 1)
        mass_TD[0, part] += _by_diagonals(weights_RK)
        pairs_TD[0, part] += _by_diagonals(seen_RK.long())
        for columns, mass_D, pairs_D in zip(added, mass_TD[1:], pairs_TD[1:], strict=True):
            which = (query_R[:, None] - columns - least).flatten()
            mass_D.index_add_(0, which, weights_RK[:, columns].flatten(), alpha=-1)
            pairs_D.index_add_(0, which, seen_RK[:, columns].flatten().long(), alpha=-1)
    left = zip(mass_TD.cumsum(0).clamp(min=0), pairs_TD.cumsum(0), strict=True)
    return [_Slashes(mass_D, pairs_D, least) for mass_D, pairs_D in left]


def _rows(head: Head, progress: Progress | None) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Positions `[R]`, shares of each query's mass, float64, and visible pairs, `[R, K]`; on the CPU."""
    step = max(1, BLOCK_PAIRS // head.key_length)
    counts_Q = head.layer.unpadded()
    for start in range(0, head.query_length, step):
        part = slice(start, min(start + step, head.query_length))
        seen_RK = maps.mask_tile(head, part, slice(None)).cpu()
        weights_RK = maps.tile(head, part, slice(None)).cpu().double()
        weights_RK /= weights_RK.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
        weights_RK *= counts_Q[part, None].cpu()
        yield torch.arange(part.start, part.stop) + head.query_offset, weights_RK, seen_RK
        if progress is not None:
            progress(part.stop / head.query_length)


def _by_blocks(pairs_RK: Tensor, block: int) -> Tensor:
    """Sums over blocks of keys, `[R, J]`."""
    short = -pairs_RK.shape[1] % block
    return torch.nn.functional.pad(pairs_RK, (0, short)).unflatten(1, (-1, block)).sum(-1)


def _by_diagonals(pairs_RK: Tensor) -> Tensor:
    """Sums over i − j, from the last key's distance to the first query: `[R + K − 1]`."""
    rows, keys = pairs_RK.shape
    # Each row one further to the right than the one above, so that a diagonal becomes a column.
    wide = torch.nn.functional.pad(pairs_RK.flip(1), (0, rows)).flatten()
    return wide[: rows * (keys + rows - 1)].view(rows, -1).sum(0)


def _a_shapes(budget: Budget) -> list[SinksWindow]:
    """For each number of sinks, the longest window that the budget leaves."""
    windows = range(1, budget.key_length + 1)
    found = []
    for sinks in _counts(budget.key_length):
        shape = budget.most(lambda window, s=sinks: SinksWindow(window=window, sinks=s), windows)
        if shape is not None:
            found.append(shape)
    return found


def _a_shape_mass(query_R: Tensor, weights_RK: Tensor, shapes: list[SinksWindow]) -> Tensor:
    """The mass that each shape keeps of these rows, `[S]`: the sinks, and the window past them."""
    before_RK = torch.nn.functional.pad(weights_RK.cumsum(1), (1, 0))
    sinks_S = torch.tensor([shape.sinks for shape in shapes], dtype=torch.int64)
    window_S = torch.tensor([shape.window for shape in shapes], dtype=torch.int64)
    last = weights_RK.shape[1]
    start_RS = (query_R[:, None] - window_S + 1).clamp(0, last)
    end_R1 = (query_R[:, None] + 1).clamp(max=last)
    sinks_RS = sinks_S.clamp(max=last).expand(len(query_R), -1)
    first, near, end = (
        before_RK.gather(1, at)
        for at in (sinks_RS.minimum(start_RS), start_RS, sinks_RS.maximum(end_R1))
    )
    return (first - near + end).sum(0)


def _counts(most: int) -> list[int]:
    """Numbers to be tried, from 0 to the most."""
    if most <= EVERY_COUNT:
        return list(range(most + 1))
    powers = [1 << bit for bit in range(most.bit_length()) if 1 << bit < most]
    return [0, *powers, most]


def _half(progress: Progress | None, start: float) -> Progress | None:
    return None if progress is None else lambda share: progress(start + share / 2)
