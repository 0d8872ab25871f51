"""What every key receives and every query gives, for all heads of a layer, in one pass each.

Who computes is chosen as for maps, see `kernels/cells.py`. H query heads, Q, K positions, T keys kept;
R queries of one block.
"""

from dataclasses import replace

import torch
from torch import Tensor

from attnscope.kernels.cells import Asked, By, cells, chosen
from attnscope.kernels.errors import InvalidCall, UnsupportedCall
from attnscope.kernels.patterns.composed import compose
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.streaming import BLOCK_KEYS, BLOCK_PAIRS, LEAST_ROWS, Layer, segments

MOST_KEYS = 16
"""The most keys a query that `top_keys` gives; as many as the kernel's smallest tile holds."""


def received(layer: Layer, lse_HQ: Tensor, *, by: By | None = None) -> Tensor:
    """The weight that each key gets from all queries together: float32 `[H, K]`.

    Args:
        layer: Its heads, for one sequence.
        lse_HQ: Natural log-sum-exp, sink included; −inf where nothing is seen.
        by: Who computes; by the rule of `kernels/cells.py` when None.

    Raises:
        UnsupportedCall: Triton was demanded and does not take the layer.
    """
    rows, columns = _whole(layer.query_length), torch.arange(layer.key_length + 1)
    asked = Asked(layer=layer, lse_HQ=lse_HQ, row_edges=rows, column_edges=columns)
    return cells(asked, by=by).values_HMN[:, 0].float()


def largest(layer: Layer, lse_HQ: Tensor, *, by: By | None = None) -> Tensor:
    """The largest weight of each query, 0 where it sees nothing: float32 `[H, Q]`; see `received`."""
    rows, columns = torch.arange(layer.query_length + 1), _whole(layer.key_length)
    asked = Asked(layer=layer, lse_HQ=lse_HQ, row_edges=rows, column_edges=columns, reduce="max")
    return cells(asked, by=by).values_HMN[..., 0].float()


def kept(layer: Layer, lse_HQ: Tensor, pattern: Pattern, *, by: By | None = None) -> Tensor:
    """The weight that each query gives to keys that a pattern would keep: its recall, `[H, Q]`.

    A sparse pattern's quality (arXiv 2407.02490 §3.1), exact; its cost is that of the pairs which
    both the layer and the pattern show. The other arguments are those of `received`.
    """
    both = (
        layer
        if pattern == layer.pattern
        else replace(layer, pattern=compose(pattern, layer.pattern))
    )
    rows, columns = torch.arange(layer.query_length + 1), _whole(layer.key_length)
    asked = Asked(layer=both, lse_HQ=lse_HQ, row_edges=rows, column_edges=columns)
    return cells(asked, by=by).values_HMN[..., 0].float()


def top_keys(
    layer: Layer, lse_HQ: Tensor, count: int, *, by: By | None = None
) -> tuple[Tensor, Tensor]:
    """The keys to which each query gives most, and how much.

    Args:
        layer: Its heads, for one sequence.
        lse_HQ: Natural log-sum-exp, sink included.
        count: How many, up to `MOST_KEYS`.
        by: Who computes; by the rule of `kernels/cells.py` when None.

    Returns:
        Weights, float32, the largest first, and keys, int64, both `[H, Q, count]`; 0 and −1 where a query
        sees fewer keys.

    Raises:
        InvalidCall: No key, or too many.
        UnsupportedCall: Triton was demanded and does not take the layer.
    """
    if not 1 <= count <= MOST_KEYS:
        raise InvalidCall(f"a query has 1 to {MOST_KEYS} top keys, got {count}.")
    scores_HQT, keys_HQT = _top_scores(layer, count, by)
    lse_HQ1 = lse_HQ.float().masked_fill(lse_HQ == -torch.inf, torch.inf)[..., None]
    return (scores_HQT.float() - lse_HQ1).exp(), keys_HQT


def _top_scores(layer: Layer, count: int, by: By | None) -> tuple[Tensor, Tensor]:
    if chosen(layer, by) == "triton":
        # Not at the top: Triton need not be installed where its kernels do not run.
        from attnscope.kernels.triton import maps_top

        try:
            return maps_top.top_keys(layer, count)
        except UnsupportedCall:
            if by is not None:
                raise
    step = max(LEAST_ROWS, BLOCK_PAIRS // (layer.heads * min(BLOCK_KEYS, layer.key_length)))
    blocks = [
        _top_of(layer, slice(at, min(at + step, layer.query_length)), count)
        for at in range(0, layer.query_length, step)
    ]
    scores, keys = zip(*blocks, strict=True)
    return torch.cat(scores, 1), torch.cat(keys, 1)


def _top_of(layer: Layer, queries: slice, count: int) -> tuple[Tensor, Tensor]:
    """The highest scores and their keys of a block of queries, `[H, R, count]` both."""
    device = layer.q_HQD.device
    index = torch.arange(queries.start, queries.stop, device=device)
    shape = (layer.heads, len(index), count)
    best = torch.full(shape, -torch.inf, device=device)
    keys = torch.full(shape, -1, dtype=torch.int64, device=device)
    every = range(layer.key_length)
    for segment in segments(layer, queries.start, queries.stop - 1, every, limit=BLOCK_KEYS):
        span = range(segment.start, segment.end)
        hidden_RC = ~layer.seen(index, span)
        x_HRC = layer.scores(queries, slice(span.start, span.stop))
        both = torch.cat([best, x_HRC.masked_fill_(hidden_RC, -torch.inf).float()], -1)
        key_C = torch.arange(span.start, span.stop, device=device).expand(x_HRC.shape)
        best, place = both.topk(count, -1)
        keys = torch.cat([keys, key_C], -1).gather(-1, place)
    return best, keys.masked_fill(best == -torch.inf, -1)


def _whole(length: int) -> Tensor:
    return torch.tensor([0, length])
