"""What a few blocks of a mask are, pair by pair."""

import numpy as np
import torch

from attnscope.kernels.patterns.pattern import EMPTY, FULL, PARTIAL, Pattern


def block_kinds(
    pattern: Pattern,
    queries: range,
    key_length: int,
    block: int,
    rows: np.ndarray,
    columns: np.ndarray,
) -> np.ndarray:
    """The kinds of some blocks, every pair asked.

    Args:
        pattern: The rule.
        queries: Absolute positions of all queries of the mask.
        key_length: All keys of the mask.
        block: Queries and keys of a block.
        rows: int `[blocks]`, the row of blocks each is in.
        columns: int `[blocks]`, the column.

    Returns:
        `[blocks]` of EMPTY, PARTIAL, FULL.
    """
    inside = np.arange(block, dtype=np.int32)
    # The last block may be short: its last position stands in for those it lacks.
    query_BQ = (rows.astype(np.int32)[:, None] * block + inside).clip(
        max=len(queries) - 1
    ) + queries.start
    key_BK = (columns.astype(np.int32)[:, None] * block + inside).clip(max=key_length - 1)
    query, key = torch.from_numpy(query_BQ)[:, :, None], torch.from_numpy(key_BK)[:, None]
    seen_BP = pattern.visible(query, key).expand(-1, block, block).flatten(1).numpy()
    some = np.where(seen_BP.any(1), PARTIAL, EMPTY)
    return np.where(seen_BP.all(1), FULL, some)


def chunks(length: int, step: int) -> list[slice]:
    """Slices that cover a length, a step each."""
    return [slice(at, at + max(step, 1)) for at in range(0, length, max(step, 1))]
