"""Which tiles each block of a map's queries visits, and what is hidden in them, under any pattern.

A band is told in numbers and cut by arithmetic. Of another pattern the tiles are listed: those that
its rule divides with a mask of one bit a pair, equal masks held once. Imports no Triton.

Q, K positions; R slots of a block of queries, C slots of a tile of keys.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from attnscope.kernels.errors import UnsupportedCall
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.streaming import Layer
from attnscope.kernels.triton.block_plan import MOST_MASK_BYTES, WORD_KEYS
from attnscope.kernels.triton.configurations import FlashConfig, capability_of, map_config
from attnscope.kernels.triton.flash_rule import FlashRule, rule_of
from attnscope.kernels.triton.maps_cut import Axis, axis, runs

TILES_AT_A_TIME = 64
NO_RULE = FlashRule(
    before=0,
    after=0,
    first_keys=0,
    first_keys_causal=False,
    query_offset=0,
    scale=1.0,
    softcap=None,
)
"""What a kernel is told of the band of a pattern that is none."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Visits:
    """The tiles that each block of queries visits.

    Attributes:
        rule: In numbers; None where the tiles are listed.
        runs_b42: int32 `[blocks, 4, 2]`, see `maps_cut.runs`: ranges of tiles, or of the list.
        tiles: int32, the list; None under a rule.
        which: int32, which mask each tile of the list has, −1 where every pair of it is visible.
        masks: int64 `[distinct, R]`, bit c of a word is the key in slot c.
    """

    rule: FlashRule | None
    runs_b42: Tensor
    tiles: Tensor | None = None
    which: Tensor | None = None
    masks: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """How a map of a layer is cut, and what is visited of it."""

    rows: Axis
    columns: Axis
    visited: Visits
    config: FlashConfig

    @property
    def parts(self) -> int:
        """Of cells, over the whole map."""
        return self.rows.parts * self.columns.parts

    @property
    def split(self) -> tuple[int, int]:
        """Parts of a cell, down and across."""
        return self.rows.split, self.columns.split

    @property
    def stages(self) -> int:
        """Two for one where a tile is looked up before its keys can be loaded."""
        looked_up = self.columns.has_slack or self.visited.rule is None
        return self.config.num_stages * 2 - 1 if looked_up else self.config.num_stages


def cut_of(
    layer: Layer, row_edges: Tensor, column_edges: Tensor, config: FlashConfig | None = None
) -> Cut:
    """The cut of a map between these edges; by `map_config` without a configuration.

    Raises:
        UnsupportedCall: The pattern has so little structure that its masks would not fit.
    """
    q_HQD = layer.q_HQD
    config = config or map_config(q_HQD.shape[2], q_HQD.dtype, capability_of(q_HQD.device))
    rows, columns = axis(row_edges, config.block_queries), axis(column_edges, config.block_keys)
    return Cut(rows=rows, columns=columns, visited=visits(layer, rows, columns), config=config)


def visits(layer: Layer, rows: Axis, columns: Axis) -> Visits:
    """What the kernels visit of a layer's map.

    Args:
        layer: Its pattern, offset and scale rule.
        rows: The map's queries.
        columns: Its keys; of `WORD_KEYS` places a tile at most.

    Raises:
        UnsupportedCall: The pattern has so little structure that its masks would not fit.
    """
    device = layer.q_HQD.device
    rule = rule_of(
        layer.pattern, query_offset=layer.query_offset, scale=layer.scale, softcap=layer.softcap
    )
    if rule is not None:
        found = runs(rule, rows.starts, columns.starts)
        return Visits(rule=rule, runs_b42=torch.from_numpy(found).to(device))
    shape = (rows.slots, rows.block, columns.slots, columns.block)
    edges = (rows.edges.tobytes(), columns.edges.tobytes())
    listed = _listed(layer.pattern, layer.query_offset, layer.key_length, shape, edges)
    runs_b42, tiles, which, masks = (torch.from_numpy(array).to(device) for array in listed)
    return Visits(rule=None, runs_b42=runs_b42, tiles=tiles, which=which, masks=masks)


@lru_cache(maxsize=16)
def _listed(
    pattern: Pattern,
    query_offset: int,
    key_length: int,
    shape: tuple[int, int, int, int],
    edges: tuple[bytes, bytes],
) -> tuple[np.ndarray, ...]:
    """Runs, tiles, which mask each has, and the masks."""
    rows, columns = (
        Axis(edges=np.frombuffer(some, np.int32), split=1, slots=slots, block=block)
        for some, slots, block in zip(edges, shape[::2], shape[1::2], strict=True)
    )
    found = np.zeros((len(rows.positions), 4, 2), np.int32)
    tiles: list[int] = []
    which: list[int] = []
    masks: dict[bytes, int] = {}
    for block, queries in enumerate(rows.positions):
        whole, divided = _kinds(pattern, queries, query_offset, key_length, columns)
        numbers = [masks.setdefault(words.tobytes(), len(masks)) for _, words in divided]
        found[block, 2] = len(tiles), len(tiles) + len(whole)
        found[block, 3] = found[block, 2, 1], found[block, 2, 1] + len(divided)
        tiles += [*whole, *(tile for tile, _ in divided)]
        which += [-1] * len(whole) + numbers
        if len(masks) * rows.block * 8 > MOST_MASK_BYTES:
            raise UnsupportedCall(
                f"Triton maps: the rule {pattern.title!r} divides its tiles in so many ways that "
                f"their masks need more than {MOST_MASK_BYTES >> 20} MiB.",
                "PyTorch's maps apply the rule as they go.",
            )
    words = np.frombuffer(b"".join(masks), np.int64).reshape(-1, rows.block).copy()
    return found, np.array(tiles, np.int32), np.array(which, np.int32), words


def _kinds(
    pattern: Pattern, queries: np.ndarray, query_offset: int, key_length: int, columns: Axis
) -> tuple[list[int], list[tuple[int, np.ndarray]]]:
    """The tiles that a block of queries sees whole, and those that it sees in part with their words."""
    real_R = queries >= 0
    if not real_R.any():
        return [], []
    first = int(queries[real_R][0]) + query_offset
    last = int(queries[real_R][-1]) + 1 + query_offset
    starts, ends = columns.starts[:-1], columns.starts[1:]
    touched, full = np.zeros(len(starts), bool), np.zeros(len(starts), bool)
    for start, end in pattern.key_spans(first, last, key_length):
        touched |= (ends > start) & (starts < end)
    for start, end in pattern.full_key_spans(first, last, key_length):
        full |= (starts >= start) & (ends <= end)
    whole, divided = np.flatnonzero(full).tolist(), []
    position_R = torch.from_numpy(np.where(real_R, queries + query_offset, first))
    asked = np.flatnonzero(touched & ~full)
    for tile, seen_RC, real_C in _asked(pattern, position_R, asked, columns):
        seen_RC &= real_R[:, None] & real_C
        if seen_RC[real_R][:, real_C].all():
            whole.append(tile)
        elif seen_RC.any():
            divided.append((tile, _words(seen_RC)))
    return whole, divided


def _asked(
    pattern: Pattern, position_R: Tensor, tiles: np.ndarray, columns: Axis
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """What the rule says of each of these tiles, `[R, C]`, and which of its slots hold a key."""
    positions = columns.positions
    for at in range(0, len(tiles), TILES_AT_A_TIME):
        some = tiles[at : at + TILES_AT_A_TIME]
        # A rule may look positions up in a table: it is asked about none that do not exist.
        key_tC = torch.from_numpy(positions[some].clip(0))
        seen = pattern.visible(position_R[:, None, None], key_tC[None])
        seen_RtC = seen.expand(len(position_R), *key_tC.shape).numpy()
        for place, tile in enumerate(some.tolist()):
            yield tile, seen_RtC[:, place].copy(), positions[tile] >= 0


def _words(seen_RC: np.ndarray) -> np.ndarray:
    bits = np.zeros((len(seen_RC), WORD_KEYS), np.bool_)
    bits[:, : seen_RC.shape[1]] = seen_RC
    return np.packbits(bits, axis=-1, bitorder="little").view("<i8")[:, 0]
