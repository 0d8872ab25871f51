"""One attention call of a model, run by a backend: as the model asks, or within patterns of ours.

B batch, H query heads, G kv heads, Q and K positions, D head dim; h heads that run together.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attnscope.kernels import registry
from attnscope.kernels.call import AttentionCall
from attnscope.kernels.errors import InvalidCall, UnsupportedCall
from attnscope.kernels.patterns.composed import compose
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.models.assignment import HeadPatterns, LayerPatterns
from attnscope.models.attention_arguments import Asked
from attnscope.models.masks import Mask

Tensors = tuple[Tensor, Tensor, Tensor]
"""q `[B, H, Q, D]`, k and v `[B, G, K, ·]`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of one attention call.

    Attributes:
        out_BHQD: `[B, H, Q, value_dim]`.
        lse_BHQ: Natural log-sum-exp, or None where a backend gives none.
        calls: What the backend was asked: one call, or one for each sequence and group of heads
            whose rules differ.
    """

    out_BHQD: Tensor
    lse_BHQ: Tensor | None
    calls: tuple[AttentionCall, ...]


def run(name: str, tensors: Tensors, asked: Asked, patterns: LayerPatterns = None) -> Answer:
    """Runs a call.

    Args:
        name: Of the backend.
        tensors: q, k and v.
        asked: What the model asks besides.
        patterns: Composed with the model's own rule; heads of one pattern run together.

    Raises:
        UnsupportedCall: The backend refuses, or positions do not count from the first token.
        InvalidCall: Patterns for another number of heads, or made for other lengths.
    """
    if not isinstance(patterns, tuple):
        return _run_heads(name, tensors, _within(asked, patterns))
    query_heads = tensors[0].shape[1]
    if len(patterns) != query_heads:
        raise InvalidCall(
            f"there are patterns for {len(patterns)} heads, and the layer has {query_heads}.",
            "Give one for each head; None where a head keeps the model's rule.",
        )
    parts = [
        (
            heads_h,
            _run_heads(name, _of(tensors, heads_h), _within(_of_heads(asked, heads_h), pattern)),
        )
        for pattern, heads_h in _groups(patterns, tensors[0].device)
    ]
    order_H = torch.cat([heads_h for heads_h, _ in parts]).argsort()
    sums = [part.lse_BHQ for _, part in parts if part.lse_BHQ is not None]
    return Answer(
        out_BHQD=torch.cat([part.out_BHQD for _, part in parts], 1)[:, order_H],
        lse_BHQ=torch.cat(sums, 1)[:, order_H] if len(sums) == len(parts) else None,
        calls=tuple(call for _, part in parts for call in part.calls),
    )


def _groups(
    patterns: HeadPatterns, device: torch.device
) -> Iterator[tuple[Pattern | None, Tensor]]:
    """Each pattern with its heads, int64 `[h]`."""
    for pattern in dict.fromkeys(patterns):
        heads = [head for head, own in enumerate(patterns) if own == pattern]
        yield pattern, torch.tensor(heads, device=device)


def _of(tensors: Tensors, heads_h: Tensor) -> Tensors:
    """The tensors of some heads: kv heads as they are where each serves as many, else one a head."""
    q_BHQD, k_BGKD, v_BGKD = tensors
    kv_h = heads_h // (q_BHQD.shape[1] // k_BGKD.shape[1])
    kv_heads, counts = kv_h.unique_consecutive(return_counts=True)
    chosen = kv_heads if bool((counts == counts[0]).all()) else kv_h
    return q_BHQD[:, heads_h], k_BGKD[:, chosen], v_BGKD[:, chosen]


def _of_heads(asked: Asked, heads_h: Tensor) -> Asked:
    sinks_H, bias_HR = asked.sinks_H, asked.distance_bias_HR
    return replace(
        asked,
        sinks_H=None if sinks_H is None else sinks_H[heads_h],
        distance_bias_HR=None if bias_HR is None else bias_HR[heads_h],
    )


def _within(asked: Asked, pattern: Pattern | None) -> Asked:
    """The same call with its rule restricted to the pattern's."""
    if pattern is None:
        return asked
    mask = asked.mask
    _check_positions(mask)
    both = tuple(own if pattern == own else compose(pattern, own) for own in mask.patterns)
    return replace(asked, mask=replace(mask, patterns=both))


def _check_positions(mask: Mask) -> None:
    """A pattern says which tokens are first: they must be where it looks for them."""
    if mask.dropped_keys:
        raise UnsupportedCall(
            f"The model's cache has dropped its first {mask.dropped_keys} keys, so that positions no "
            "longer count from the first token, as a pattern does.",
            "Use a cache that keeps every key.",
        )
    seen_BK = mask.visible_keys_BK
    if seen_BK is not None and not bool(seen_BK[:, 0].all()):
        raise UnsupportedCall(
            "A prompt begins with padding, and a pattern counts positions from the first token.",
            "Run prompts one at a time, or pad them on the right.",
        )


def _run_heads(name: str, tensors: Tensors, asked: Asked) -> Answer:
    mask = asked.mask
    if len(mask.patterns) == 1:
        return _run_one(name, tensors, asked, mask.patterns[0], mask.visible_keys_BK)
    parts = []
    for sequence, pattern in enumerate(mask.patterns):
        one = slice(sequence, sequence + 1)
        padding = mask.visible_keys_BK
        q, k, v = (tensor[one] for tensor in tensors)
        parts.append(
            _run_one(name, (q, k, v), asked, pattern, None if padding is None else padding[one])
        )
    sums = [part.lse_BHQ for part in parts if part.lse_BHQ is not None]
    return Answer(
        out_BHQD=torch.cat([part.out_BHQD for part in parts]),
        lse_BHQ=torch.cat(sums) if len(sums) == len(parts) else None,
        calls=tuple(call for part in parts for call in part.calls),
    )


def _run_one(
    name: str, tensors: Tensors, asked: Asked, pattern: Pattern, visible_keys_BK: Tensor | None
) -> Answer:
    call = AttentionCall.of(
        *tensors,
        pattern=pattern,
        scale=asked.scale,
        query_offset=asked.mask.query_offset,
        softcap=asked.softcap,
        has_sinks=asked.sinks_H is not None,
        has_padding=visible_keys_BK is not None,
        has_distance_bias=asked.distance_bias_HR is not None,
    )
    output = registry.backend(name).run(
        *tensors,
        call,
        sinks_H=asked.sinks_H,
        visible_keys_BK=visible_keys_BK,
        distance_bias_HR=asked.distance_bias_HR,
    )
    return Answer(out_BHQD=output.out_BHQD, lse_BHQ=output.lse_BHQ, calls=(call,))
