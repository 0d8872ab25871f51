"""Captures made of random numbers, as a forward pass would leave them; no model is needed."""

import torch

from attnscope.kernels.maps import log_sum_exp
from attnscope.kernels.patterns.causal import Causal
from attnscope.models.captured import Capture, LayerCapture, LogSumExp

HEADS, KV_HEADS, DIM = 4, 2, 8


def made(length: int = 40, *, layers: int = 2, sequences: int = 2, dim: int = DIM) -> Capture:
    """A causal capture; sequence 1 is padded by a quarter at its end.

    Args:
        length: Tokens of the longest sequence.
        layers: How many layers, numbered 0, 2, 4, ...: not every layer of the model was captured.
        sequences: 1 or 2.
        dim: Head dim.
    """
    torch.manual_seed(length)
    spans = ((0, length), (0, length - length // 4))[:sequences]
    seen = torch.arange(length)[None] < torch.tensor([end for _, end in spans])[:, None]
    return Capture(
        layers=tuple(_layer(2 * n, len(spans), length, dim, seen) for n in range(layers)),
        tokens=tuple(tuple(f" t{i}" for i in range(end)) for _, end in spans),
        token_ids=tuple(tuple(i % 7 for i in range(end)) for _, end in spans),
        words=tuple(tuple(range(end)) for _, end in spans),
        marks=tuple((0,) for _ in spans),
        texts=tuple("".join(f" t{i}" for i in range(end)) for _, end in spans),
        spans=spans,
        title="Tiny",
        source="demo",
        revision=None,
        kind="decoder",
        backend="eager",
        device="cpu",
        dtype="float32",
        seconds=0.25,
        next_tokens=tuple(((" the", 0.5), (" a", 0.25)) for _ in spans),
        created="2026-11-21T00:00:00+00:00",
    )


def _layer(number: int, batch: int, length: int, dim: int, seen: torch.Tensor) -> LayerCapture:
    q_BHQD = torch.randn(batch, HEADS, length, dim)
    k_BGKD = torch.randn(batch, KV_HEADS, length, dim)
    mask = None if bool(seen.all()) else seen
    lse_BHQ = log_sum_exp(
        q_BHQD,
        k_BGKD,
        pattern=Causal(),
        query_offset=0,
        scale=dim**-0.5,
        softcap=None,
        sinks_H=None,
        visible_keys_BK=mask,
    )
    return LayerCapture(
        layer=number,
        name=f"layers.{number}.attention",
        backend="eager",
        q_BHQD=q_BHQD,
        k_BGKD=k_BGKD,
        value_norm_BGK=torch.rand(batch, KV_HEADS, length) + 0.5,
        patterns=(Causal(),),
        query_offset=0,
        scale=dim**-0.5,
        softcap=None,
        sinks_H=None,
        visible_keys_BK=mask,
        log_sum_exp=LogSumExp(lse_BHQ),
    )
