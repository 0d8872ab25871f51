"""A mask rule that is a function of the model, as a table that can be kept: spans of keys by query.

Q queries, K keys, S spans of the query that has most, R rows of a block.
"""

from functools import partial

import torch
from torch import Tensor

from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.patterns.predicate import Predicate

_MOST_PAIRS = 1 << 30
_MOST_ENTRIES = 1 << 24
_BLOCK_PAIRS = 1 << 22


def tabulate(pattern: Pattern, *, query_offset: int, query_length: int, key_length: int) -> Tensor:
    """The spans of visible keys of every query.

    Every pair is asked once, by blocks of rows.

    Args:
        pattern: Any rule.
        query_offset: Position of the first query.
        query_length: Q.
        key_length: K.

    Returns:
        int32 `[Q, S, 2]`, half-open spans in order; an empty span where a query has fewer.

    Raises:
        InvalidCall: More pairs than can be asked in reasonable time, or a rule so scattered that
            its table would be larger than the capture.
    """
    too_large = InvalidCall(
        f"The rule {pattern.title!r} over {query_length} by {key_length} tokens is too large to save.",
        "Export the maps or the diagnostics instead, or use a shorter prompt.",
    )
    if query_length * key_length > _MOST_PAIRS:
        raise too_large
    key_K = torch.arange(key_length)
    rows = max(1, _BLOCK_PAIRS // key_length)
    blocks = []
    for start in range(0, query_length, rows):
        query_R = torch.arange(start, min(start + rows, query_length)) + query_offset
        seen_RK = pattern.visible(query_R[:, None], key_K[None]).expand(len(query_R), key_length)
        blocks.append(_spans(seen_RK))
        if query_length * blocks[-1].shape[1] > _MOST_ENTRIES:
            raise too_large
    most = max(block.shape[1] for block in blocks)
    pads = [(0, 0, 0, most - block.shape[1]) for block in blocks]
    padded = [torch.nn.functional.pad(one, pad) for one, pad in zip(blocks, pads, strict=True)]
    return torch.cat(padded)


def rule_of(table_QS2: Tensor, *, query_offset: int, label: str) -> Predicate:
    """The rule that a table of `tabulate` holds; outside its queries nothing is visible.

    Args:
        table_QS2: int32 `[Q, S, 2]`.
        query_offset: Position of its first query.
        label: The rule in a few words.
    """
    return Predicate(function=partial(_within, table_QS2, query_offset), label=label)


def _spans(seen_RK: Tensor) -> Tensor:
    """int32 `[R, S, 2]` of a block of rows."""
    edges_RK1 = torch.nn.functional.pad(seen_RK.to(torch.int8), (1, 1)).diff(dim=1)
    starts_RK1, ends_RK1 = edges_RK1 == 1, edges_RK1 == -1
    count_R = starts_RK1.sum(1)
    spans_RS2 = torch.zeros(len(seen_RK), int(count_R.max()), 2, dtype=torch.int32)
    # Row-major order gives the n-th start and the n-th end of a row the same place.
    filled_RS = torch.arange(spans_RS2.shape[1]) < count_R[:, None]
    spans_RS2[..., 0][filled_RS] = starts_RK1.nonzero()[:, 1].int()
    spans_RS2[..., 1][filled_RS] = ends_RK1.nonzero()[:, 1].int()
    return spans_RS2


def _within(table_QS2: Tensor, offset: int, query_index: Tensor, key_index: Tensor) -> Tensor:
    table_QS2 = table_QS2.to(query_index.device)
    row = query_index - offset
    known = (row >= 0) & (row < len(table_QS2))
    row = row.clamp(0, len(table_QS2) - 1)
    seen = torch.zeros((), dtype=torch.bool, device=query_index.device)
    for span in range(table_QS2.shape[1]):
        start, end = table_QS2[row, span, 0], table_QS2[row, span, 1]
        seen = seen | ((key_index >= start) & (key_index < end))
    return seen & known
