"""A pattern's mask at any length: its picture by blocks, and what it keeps; never n × n pairs at once."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.patterns.pattern import EMPTY, FULL, PARTIAL, Pattern, pairs_up_to
from attnscope.profiling.units import count

MOST_CELLS = 256  # a side
MOST_BLOCKS = 2**23
_MOST_ASKED = 2**31
_SAMPLED_QUERIES = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A rectangle of a mask by cells.

    Attributes:
        kinds: uint8 `[rows, columns]` of EMPTY, PARTIAL, FULL; single pairs are EMPTY or FULL.
        cell: Queries and keys of a cell; 1 where every pair is drawn.
        query_start: The first query drawn.
        key_start: The first key drawn.
        query_end: One past the last query.
        key_end: One past the last key.
    """

    kinds: np.ndarray
    cell: int
    query_start: int
    key_start: int
    query_end: int
    key_end: int


def drawn(pattern: Pattern, length: int, region: tuple[int, int, int, int]) -> Drawn:
    """The mask of a region, in as few tokens a cell as `MOST_CELLS` a side allow.

    Args:
        pattern: The rule.
        length: Queries and keys of the whole.
        region: `(q0, q1, k0, k1)`, ends excluded; it grows to whole cells.

    Raises:
        InvalidCall: The pattern is made for other lengths.
    """
    q0, q1, k0, k1 = (min(each, length) for each in region)
    cell = -(-max(q1 - q0, k1 - k0) // MOST_CELLS)
    # Cells are counted from position 0, so that zooming in never shifts them.
    q0, k0 = q0 // cell * cell, k0 // cell * cell
    q1, k1 = (min(-(-end // cell) * cell, length) for end in (q1, k1))
    pattern.check_lengths(range(length), length)
    if cell == 1:
        query, key = torch.arange(q0, q1)[:, None], torch.arange(k0, k1)[None]
        kinds = pattern.visible(query, key).numpy().astype(np.uint8) * FULL
    else:
        kinds = pattern.block_mask(q1 - q0, k1, cell, query_offset=q0)[:, k0 // cell :]
    return Drawn(kinds=kinds, cell=cell, query_start=q0, key_start=k0, query_end=q1, key_end=k1)


def kept(pattern: Pattern, length: int, block: int) -> dict[str, Any]:
    """What a pattern keeps of a text of that length.

    Returns:
        pairs, and exact (whether they were counted, or estimated from some queries); causal_pairs (all
        that a causal model has); last (keys of the last query); empty (queries that see no key, of
        those counted); skipped, partial, full (blocks) and block.

    Raises:
        InvalidCall: Too many blocks, or a pattern made for other lengths.
    """
    rows = -(-length // block)
    if rows**2 > MOST_BLOCKS:
        raise InvalidCall(
            f"Blocks of {block} make {count(rows**2)} at {count(length)} tokens, and "
            f"{count(MOST_BLOCKS)} is the limit.",
            "Choose larger blocks.",
        )
    pattern.check_lengths(range(length), length)
    mask = pattern.block_mask(length, length, block)
    skipped, partial, full = (
        int(np.count_nonzero(mask == kind)) for kind in (EMPTY, PARTIAL, FULL)
    )
    seen_Q, step = _keys_seen(pattern, length)
    return {
        "pairs": round(int(seen_Q.sum()) * length / len(seen_Q)),
        "exact": step == 1,
        "causal_pairs": pairs_up_to(0, length, length),
        "last": int(seen_Q[-1]),
        "empty": int(np.count_nonzero(seen_Q == 0)),
        "counted": len(seen_Q),
        "skipped": skipped,
        "partial": partial,
        "full": full,
        "block": block,
    }


def _keys_seen(pattern: Pattern, length: int) -> tuple[np.ndarray, int]:
    """Keys that each query sees, or every so many queries where each pair would have to be asked."""
    asked = length * length > _MOST_ASKED and pattern.key == "rule"
    step = length // _SAMPLED_QUERIES if asked else 1
    query_Q = np.arange(length - 1, -1, -step)[::-1].copy()
    return pattern.keys_seen(query_Q, np.zeros_like(query_Q), np.full_like(query_Q, length)), step
