"""How a map is cut into the tiles of its kernels, and which tiles its pattern lets be skipped.

No Triton, no GPU. A tile never crosses the edge of a map's cell: every cell is cut into `split`
parts, alike to within one position, each narrow enough for the `slots` (a power of 2) that it gets
in a tile, and slots that are left over are masked. So any edges are exact, and a coarser map is the
sum, or the maximum, of the parts.

Q, K positions; R slots of a block of queries, C slots of a tile of keys.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from attnscope.kernels.triton.flash_rule import FlashRule

TRIES = 8
"""How many ways to split a cell are weighed: more parts leave fewer slots over, but are more."""

FIRST, LEFT, WHOLE, RIGHT = range(4)
"""The runs of tiles that a block of queries visits: the first keys, the left edge of the band, the tiles
of which it sees every pair, the right edge. Of a pattern that is no band only the last two are used."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Axis:
    """The queries, or the keys, of a map as its kernel visits them.

    Attributes:
        edges: int32 `[parts + 1]`; part i holds the positions `edges[i]` to `edges[i + 1] − 1`.
        split: Parts of a cell of the map.
        slots: Places of a part in a tile.
        block: Places of a tile; a multiple of `slots`.
    """

    edges: np.ndarray
    split: int
    slots: int
    block: int

    @property
    def parts(self) -> int:
        """How many there are, over all cells."""
        return len(self.edges) - 1

    @property
    def starts(self) -> np.ndarray:
        """Where each tile starts, and where the last ends: `[tiles + 1]`."""
        each = self.block // self.slots
        return np.append(self.edges[:-1:each], self.edges[-1])

    @property
    def has_slack(self) -> bool:
        """Whether some slot holds no position."""
        full = np.diff(self.edges) == self.slots
        return not full.all() or self.parts * self.slots % self.block > 0

    @property
    def positions(self) -> np.ndarray:
        """What each slot of each tile holds, −1 for nothing: int64 `[tiles, block]`."""
        tiles = len(self.starts) - 1
        held = self.edges[:-1, None] + np.arange(self.slots)
        held = np.where(held < self.edges[1:, None], held, -1).ravel()
        filled = np.full(tiles * self.block, -1, np.int64)
        filled[: held.size] = held
        return filled.reshape(tiles, self.block)


def axis(edges: Tensor, block: int) -> Axis:
    """Cuts the cells between these edges for tiles of `block` places.

    Args:
        edges: Integers `[cells + 1]`, ascending; no cell is empty.
        block: A power of 2.
    """
    starts = edges.cpu().numpy().astype(np.int64)
    widths = np.diff(starts)
    widest = int(widths.max())
    least = -(-widest // block)
    split = min(
        range(least, least + TRIES), key=lambda parts: (parts * _slots(widest, parts), parts)
    )
    within = np.arange(split) * widths[:, None] // split
    return Axis(
        edges=np.append(starts[:-1, None] + within, starts[-1]).astype(np.int32),
        split=split,
        slots=_slots(widest, split),
        block=block,
    )


def runs(rule: FlashRule, query_starts: np.ndarray, key_starts: np.ndarray) -> np.ndarray:
    """The tiles that each block of queries visits, in the order of `FIRST` to `RIGHT`.

    Args:
        rule: Which pairs are visible.
        query_starts: Indices into Q where blocks start, and where the last ends.
        key_starts: The same of the tiles, in K.

    Returns:
        int32 `[blocks, 4, 2]`, a half-open range of tiles each; they do not overlap.
    """
    first = query_starts[:-1].astype(np.int64) + rule.query_offset
    last = query_starts[1:].astype(np.int64) - 1 + rule.query_offset
    tiles = len(key_starts) - 1
    starts, ends = key_starts[:-1], key_starts[1:]
    # A tile is visited that ends after the band's first key and starts no later than its last.
    start = np.searchsorted(ends, first - rule.before, side="right")
    end = np.maximum(np.searchsorted(starts, last + rule.after, side="right"), start)
    limit = np.minimum(last + 1, rule.first_keys) if rule.first_keys_causal else rule.first_keys
    first_end = np.broadcast_to(np.searchsorted(starts, limit, side="left"), first.shape)
    if rule.first_keys == 0:
        first_end = np.zeros_like(start)
    end = np.where(first_end > start, np.maximum(end, first_end), end)
    whole = np.searchsorted(starts, last - rule.before, side="left").clip(start, end)
    whole_end = np.searchsorted(ends, first + rule.after + 1, side="right").clip(whole, end)
    edges = (np.zeros_like(start), np.minimum(first_end, start), start, whole, whole_end, end)
    first_run, left, middle, right = ((0, 1), (2, 3), (3, 4), (4, 5))
    found = [np.stack([edges[a], edges[b]], 1) for a, b in (first_run, left, middle, right)]
    return np.stack(found, 1).clip(0, tiles).astype(np.int32)


def _slots(widest: int, parts: int) -> int:
    return 1 << (-(-widest // parts) - 1).bit_length()
