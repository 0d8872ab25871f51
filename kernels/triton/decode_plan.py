"""How a decode is cut: its tiles, and into how many parts its keys. Pure arithmetic, no Triton."""

from dataclasses import dataclass
from functools import lru_cache

import torch

MOST_QUERIES = 8
"""Queries of a decode, at most: one, or the few of speculative decoding."""

PROGRAMS_AT_ONCE = 2
"""Programs of the decode kernel that one multiprocessor holds: its shared memory fits two."""

MOST = 256
"""Splits at most: beyond, combining them costs more than it saves."""

_TILE_BYTES = 2**15
_OVERHEAD_TILES = 2
"""What a program costs besides its tiles, in tiles: its start, and its partial result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeConfig:
    """How the decode kernel cuts a call: constants of its compilation.

    Attributes:
        rows: Rows of a tile: query heads of a kv head times queries, or a part of them.
        block_keys: Keys of a tile.
        num_warps: Of a program.
        num_stages: Of its pipeline: tiles on their way, and one.
    """

    rows: int
    block_keys: int
    num_warps: int
    num_stages: int


def decode_config(
    group_rows: int, head_dim: int, value_dim: int, dtype: torch.dtype, *, paged: bool
) -> DecodeConfig:
    """The configuration for these sizes: tiles of 32 KiB, and two programs share a processor.

    Args:
        group_rows: Query heads of a kv head times queries.
        head_dim: Width of keys.
        value_dim: Width of values.
        dtype: Of all three.
        paged: Whether a tile waits for its page: each then counts as two stages.
    """
    block_dim, block_value = block_width(head_dim), block_width(value_dim)
    # Triton's ranges are powers of 2, and two widths need not add up to one.
    widths = 1 << (block_dim + block_value - 1).bit_length()
    keys = _TILE_BYTES // (widths * dtype.itemsize)
    # Exact float32 products are made in registers, which hold no larger tile.
    single = dtype == torch.float32
    return DecodeConfig(
        rows=min(max(1 << (group_rows - 1).bit_length(), 16), 16 if single else 32),
        block_keys=min(max(keys, 16), 32 if single else 128),
        num_warps=8 if single or max(block_dim, block_value) > 128 else 4,
        num_stages=5 if paged else 3,
    )


def block_width(dim: int) -> int:
    """The width of a tile that holds `dim`: a power of 2, and no less than a product takes."""
    return max(1 << (dim - 1).bit_length(), 16)


@lru_cache(maxsize=4096)
def splits(rows: int, tiles: int, multiprocessors: int) -> int:
    """The number of parts that should finish first.

    Programs run in waves of as many as the device holds. One more split shortens each program, and
    may begin another wave; time is waves × (tiles of a program + its overhead).

    Args:
        rows: Programs without any split: batch × kv heads × blocks of query rows.
        tiles: Tiles of keys that each of them would visit.
        multiprocessors: Of the device.

    Returns:
        From 1 to `min(tiles, MOST)`; the fewest among equals, for they are combined afterwards.
    """
    at_once = multiprocessors * PROGRAMS_AT_ONCE

    def time(parts: int) -> int:
        waves = -(-rows * parts // at_once)
        return waves * (-(-tiles // parts) + _OVERHEAD_TILES)

    return min(range(1, max(min(tiles, MOST), 1) + 1), key=time)
