"""Every kernel that ships, in every configuration: what is compiled and checked without a GPU.

An entry calls a host function as a user would, with tensors that have shapes and no memory, so what
is compiled is what a launch compiles. Compute capability 9.0 is written 90.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attnscope.kernels.call import AttentionCall, Dtype
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.triton.configurations import forward_config
from attnscope.kernels.triton.exponentials import exponentials
from attnscope.kernels.triton.flash_forward import flash_forward
from attnscope.kernels.triton.flash_rule import flash_rule

CAPABILITIES = (80, 86, 90)
"""A100, the other GPUs of its generation and of Ada's, H100 and H200."""

HEAD_DIMS = {64: CAPABILITIES, 128: CAPABILITIES, 256: CAPABILITIES} | dict.fromkeys(
    (16, 32, 80, 96, 192), (90,)
)
"""Widths that models have; where tiles are as for the next power of 2, on one device is enough."""

_BATCH, _QUERY_HEADS, _KV_HEADS, _LENGTH = 2, 32, 8, 4096


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
    """

    name: str
    capabilities: tuple[int, ...]
    launch: Callable[[int], object]
    wants_wgmma: bool


def every_shipped() -> tuple[Shipped, ...]:
    """Everything that ships, by family."""
    return (*_flash_forward(), *_probes())


def _flash_forward() -> Iterator[Shipped]:
    plain = {
        "causal": {},
        "full": {"rule": pattern("full")},
        "window": {"rule": pattern("sliding_window", window=1024)},
    }
    modified = {
        "sinks and window": {"rule": pattern("sinks_window", window=1024, sinks=4)},
        "softcap": {"softcap": 30.0},
        "sink logits": {"has_sinks": True},
        "padding": {"has_padding": True},
        "window, softcap, sink logits, padding": {
            "rule": pattern("sliding_window", window=1024),
            "softcap": 30.0,
            "has_sinks": True,
            "has_padding": True,
        },
    }
    for head_dim in HEAD_DIMS:
        for title, rule in plain.items():
            yield _forward(title, head_dim, "bfloat16", **rule)
    for head_dim in (64, 128, 256):
        for title, rule in modified.items():
            yield _forward(title, head_dim, "bfloat16", **rule)
        yield _forward("causal", head_dim, "float32")
    everything = "window, softcap, sink logits, padding"
    yield _forward(everything, 128, "float32", **modified[everything])
    yield _forward("causal", 128, "float16")
    yield _forward("causal, values 128 wide", 192, "bfloat16", value_dim=128)


def _forward(
    title: str,
    head_dim: int,
    dtype: Dtype,
    *,
    value_dim: int | None = None,
    rule: Pattern | None = None,
    **modifiers: Any,
) -> Shipped:
    asked = AttentionCall(
        batch=_BATCH,
        query_heads=_QUERY_HEADS,
        kv_heads=_KV_HEADS,
        query_length=_LENGTH,
        key_length=_LENGTH,
        head_dim=head_dim,
        value_dim=value_dim or head_dim,
        dtype=dtype,
        scale=head_dim**-0.5,
        pattern=rule or pattern("causal"),
        **modifiers,
    )

    def launch(capability: int) -> None:
        widest = max(asked.head_dim, asked.value_dim)
        found = flash_rule(asked)
        assert found is not None
        config = forward_config(
            widest,
            asked.torch_dtype,
            divmod(capability, 10),
            bounded_before=found.bounded_before,
        )
        flash_forward(*_tensors(asked), asked, **_extras(asked), config=config)

    return Shipped(
        capabilities=HEAD_DIMS[head_dim],
        name=f"flash_forward, {dtype}, {head_dim}, {title}",
        launch=launch,
        wants_wgmma=dtype != "float32",
    )


def _probes() -> tuple[Shipped, ...]:
    x_N = torch.empty(2**24, device="meta")

    def launch(capability: int) -> None:
        del capability
        exponentials(x_N, 512)

    return (
        Shipped(name="exponentials", capabilities=CAPABILITIES, launch=launch, wants_wgmma=False),
    )


def _tensors(call: AttentionCall) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v as models hand them over: heads next to each other, transposed in a view."""

    def of(heads: int, length: int, width: int) -> Tensor:
        shape = (call.batch, length, heads, width)
        return torch.empty(shape, dtype=call.torch_dtype, device="meta").transpose(1, 2)

    return (
        of(call.query_heads, call.query_length, call.head_dim),
        of(call.kv_heads, call.key_length, call.head_dim),
        of(call.kv_heads, call.key_length, call.value_dim),
    )


def _extras(call: AttentionCall) -> dict[str, Tensor | None]:
    sinks_H = torch.empty(call.query_heads, device="meta")
    kept_BK = torch.empty(call.batch, call.key_length, dtype=torch.bool, device="meta")
    return {
        "sinks_H": sinks_H if call.has_sinks else None,
        "visible_keys_BK": kept_BK if call.has_padding else None,
    }
