"""The softmax's denominators, streamed, for backends that give none.

B batch, H query heads, G kv heads, Q, K positions, D head dim; R queries and C keys of one block.
"""

import torch
from torch import Tensor

from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.streaming import (
    BLOCK_KEYS,
    BLOCK_PAIRS,
    LEAST_ROWS,
    Layer,
    exponentials,
    segments,
)


def log_sum_exp(
    q_BHQD: Tensor,
    k_BGKD: Tensor,
    *,
    pattern: Pattern,
    query_offset: int,
    scale: float,
    softcap: float | None = None,
    sinks_H: Tensor | None = None,
    visible_keys_BK: Tensor | None = None,
    distance_bias_HR: Tensor | None = None,
    block: int = BLOCK_KEYS,
) -> Tensor:
    """The natural log of every query's softmax denominator, streamed: for backends that give none.

    Args:
        q_BHQD: `[B, H, Q, D]`.
        k_BGKD: `[B, G, K, D]`, not repeated.
        pattern: Which pairs are visible, in absolute positions.
        query_offset: Absolute position of the first query.
        scale: Multiplies q·k.
        softcap: Bound of the scores, or None.
        sinks_H: One extra logit a head that joins the denominator, or None.
        visible_keys_BK: bool, False where a key is padding.
        distance_bias_HR: `[H, Q + K − 1]`, see `kernels/distance_bias.py`, or None.
        block: Keys read at once.

    Returns:
        float32 `[B, H, Q]`; −inf where a query sees nothing and there is no sink.

    Raises:
        InvalidCall: The shapes contradict each other.
    """
    layers = (
        Layer(
            q_HQD=q_BHQD[item],
            k_GKD=k_BGKD[item],
            pattern=pattern,
            query_offset=query_offset,
            scale=scale,
            softcap=softcap,
            visible_keys_K=None if visible_keys_BK is None else visible_keys_BK[item],
            distance_bias_HR=distance_bias_HR,
        )
        for item in range(q_BHQD.shape[0])
    )
    return torch.stack([_layer_log_sum_exp(layer, sinks_H, block) for layer in layers])


def _layer_log_sum_exp(layer: Layer, sinks_H: Tensor | None, block: int) -> Tensor:
    rows = max(LEAST_ROWS, BLOCK_PAIRS // (layer.heads * min(block, layer.key_length)))
    lse_HQ = torch.empty(layer.q_HQD.shape[:2], dtype=torch.float32, device=layer.q_HQD.device)
    for start in range(0, layer.query_length, rows):
        end = min(start + rows, layer.query_length)
        lse_HQ[:, start:end] = _block_log_sum_exp(layer, start, end, block)
    if sinks_H is None:
        return lse_HQ
    return torch.logaddexp(lse_HQ, sinks_H.to(lse_HQ)[:, None])


def _block_log_sum_exp(layer: Layer, start: int, end: int, block: int) -> Tensor:
    queries = torch.arange(start, end, device=layer.q_HQD.device)
    total_HR: Tensor | None = None
    for segment in segments(layer, start, end - 1, range(layer.key_length), limit=block):
        scores_HRC = layer.scores(slice(start, end), slice(segment.start, segment.end))
        if segment.masked:
            seen_RC = layer.seen(queries, range(segment.start, segment.end))
            scores_HRC.masked_fill_(~seen_RC, -torch.inf)
        elif layer.visible_keys_K is not None:
            hidden_C = ~layer.visible_keys_K[segment.start : segment.end]
            scores_HRC.masked_fill_(hidden_C, -torch.inf)
        part_HR = _row_log_sum_exp(scores_HRC)
        total_HR = part_HR if total_HR is None else torch.logaddexp(total_HR, part_HR)
    if total_HR is None:
        return torch.full((layer.heads, end - start), -torch.inf, device=layer.q_HQD.device)
    return total_HR


def _row_log_sum_exp(scores_HRC: Tensor) -> Tensor:
    # In place: torch.logsumexp would hold two more arrays of the block's size.
    largest_HR = scores_HRC.amax(-1)
    blind_HR = largest_HR == -torch.inf
    shift_HR = largest_HR.masked_fill(blind_HR, 0.0)
    sum_HR = exponentials(scores_HRC.sub_(shift_HR[..., None])).sum(-1)
    return sum_HR.log_().add_(shift_HR).masked_fill_(blind_HR, -torch.inf)
