"""One kernel in one configuration, and the calls that kernels are compiled for.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim, R distances.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from attnscope.kernels import distance_bias
from attnscope.kernels.call import AttentionCall, Dtype
from attnscope.kernels.patterns.catalogue import pattern

CAPABILITIES = (80, 86, 90)
"""A100, the other GPUs of its generation and of Ada's, H100 and H200."""

HEAD_DIMS: dict[int, tuple[int, ...]] = {
    **dict.fromkeys((64, 80, 96, 128, 192, 256), CAPABILITIES),
    **dict.fromkeys((16, 32), (90,)),
}
"""Widths that models have; for those narrower than any of the tables, one device is enough."""

LENGTH = 4096
"""Of queries and keys."""

WINDOW = pattern("sliding_window", window=1024)

PLAIN: dict[str, dict[str, Any]] = {
    "causal": {},
    "full": {"pattern": pattern("full")},
    "window": {"pattern": WINDOW},
}
"""What a kernel is compiled for at every width."""

BIASED = "bias by distance"
"""In which the kernels of maps have no part."""

EVERYTHING = "window, softcap, sink logits, padding"

MODIFIED: dict[str, dict[str, Any]] = {
    "sinks and window": {"pattern": pattern("sinks_window", window=1024, sinks=4)},
    "softcap": {"softcap": 30.0},
    "sink logits": {"has_sinks": True},
    "padding": {"has_padding": True},
    "packed": {"pattern": pattern("packed", lengths=(1000, 1500, 1000), causal=True)},
    EVERYTHING: {"pattern": WINDOW, "softcap": 30.0, "has_sinks": True, "has_padding": True},
}
"""What it is compiled for besides at those that have tiles of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """One host function in one configuration.

    Attributes:
        name: Family first, then what sets this one apart.
        capabilities: Of the devices it is compiled for.
        launch: Calls the host function on tensors of the `meta` device, configured for a compute
            capability.
        wants_wgmma: Whether its tiles are tall enough, 64 rows, for a Hopper GPU's warp-group
            matrix instructions, and its numbers narrow enough, 16 bits.
        wants: Figures of `Resources` that tell that it compiled as it was written: none may be 0.
    """

    name: str
    capabilities: tuple[int, ...]
    launch: Callable[[int], object]
    wants_wgmma: bool
    wants: tuple[str, ...] = ()


def entry_of(
    family: str,
    launch: Callable[[AttentionCall, int], object],
    title: str,
    call: AttentionCall,
    *,
    tall: bool = True,
    capabilities: tuple[int, ...] = CAPABILITIES,
    wants: tuple[str, ...] = (),
) -> Shipped:
    """An attention kernel for one call; `launch` takes the call and a compute capability.

    Args:
        family: Of the kernel.
        launch: Calls its host function.
        title: What sets this entry apart besides dtype and width.
        call: What it is compiled for.
        tall: Whether its tiles have 64 rows or more.
        capabilities: Of the devices it ships for.
        wants: See `Shipped`.
    """
    return Shipped(
        name=f"{family}, {call.dtype}, {call.head_dim}, {title}",
        capabilities=tuple(each for each in HEAD_DIMS[call.head_dim] if each in capabilities),
        launch=partial(launch, call),
        wants_wgmma=tall and call.dtype != "float32",
        wants=wants,
    )


def call_of(head_dim: int, dtype: Dtype = "bfloat16", **others: Any) -> AttentionCall:
    """Grouped-query attention of 4 096 tokens, causal, unless `others` say otherwise."""
    usual = AttentionCall(
        batch=2,
        query_heads=32,
        kv_heads=8,
        query_length=LENGTH,
        key_length=LENGTH,
        head_dim=head_dim,
        value_dim=head_dim,
        dtype=dtype,
        scale=head_dim**-0.5,
        pattern=pattern("causal"),
    )
    return replace(usual, **others)


def tensors_of(call: AttentionCall) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v as models hand them over: heads next to each other, transposed in a view."""

    def of(heads: int, length: int, width: int) -> Tensor:
        shape = (call.batch, length, heads, width)
        return torch.empty(shape, dtype=call.torch_dtype, device="meta").transpose(1, 2)

    return (
        of(call.query_heads, call.query_length, call.head_dim),
        of(call.kv_heads, call.key_length, call.head_dim),
        of(call.kv_heads, call.key_length, call.value_dim),
    )


def extras_of(call: AttentionCall) -> dict[str, Tensor | None]:
    """Sink logits, padding and a bias by distance, by the name that host functions give them.

    The bias is there only where the call has one: not every host function takes it.
    """
    sinks_H = torch.empty(call.query_heads, device="meta")
    kept_BK = torch.empty(call.batch, call.key_length, dtype=torch.bool, device="meta")
    extras = {
        "sinks_H": sinks_H if call.has_sinks else None,
        "visible_keys_BK": kept_BK if call.has_padding else None,
    }
    if not call.has_distance_bias:
        return extras
    distances = distance_bias.columns(call.query_length, call.key_length)
    bias_HR = torch.empty(call.query_heads, distances, device="meta")
    return {**extras, "distance_bias_HR": bias_HR}
