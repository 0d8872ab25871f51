"""Every kernel that ships, in every configuration: what is compiled and checked without a GPU.

An entry calls a host function as a user would, with tensors that have shapes and no memory, so what
is compiled is what a launch compiles. Compute capability 9.0 is written 90.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from attnscope.kernels.call import AttentionCall, Dtype
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.triton.block_plan import sparse_config
from attnscope.kernels.triton.block_sparse import block_sparse
from attnscope.kernels.triton.configurations import (
    forward_config,
    key_gradient_config,
    query_gradient_config,
)
from attnscope.kernels.triton.decode import KeyStore, decode, decode_over
from attnscope.kernels.triton.exponentials import exponentials
from attnscope.kernels.triton.flash_backward import flash_backward
from attnscope.kernels.triton.flash_forward import flash_forward
from attnscope.kernels.triton.flash_rule import FlashRule, flash_rule

CAPABILITIES = (80, 86, 90)
"""A100, the other GPUs of its generation and of Ada's, H100 and H200."""

HEAD_DIMS = {64: CAPABILITIES, 128: CAPABILITIES, 256: CAPABILITIES} | dict.fromkeys(
    (16, 32, 80, 96, 192), (90,)
)
"""Widths that models have; where tiles are as for the next power of 2, on one device is enough."""

_LENGTH = 4096

BELOW_STANDARD = {
    "flash_forward, float32, 256, causal": (80,),
    "flash_backward, float32, 256, causal": (90,),
    "flash_backward, bfloat16, 256, causal": (90,),
    "flash_backward, bfloat16, 256, full": (90,),
    "flash_backward, bfloat16, 256, window": (90,),
    "flash_backward, bfloat16, 256, window, softcap, sink logits, padding": (90,),
    "block_sparse, float32, 128, sinks and window": (86,),
}
"""Known to spill a dozen registers at most, or to miss wgmma: right, slower than need be, and held
to the record like the rest."""

WINDOW = pattern("sliding_window", window=1024)

PLAIN: dict[str, dict[str, Any]] = {
    "causal": {},
    "full": {"pattern": pattern("full")},
    "window": {"pattern": WINDOW},
}
"""What a kernel is compiled for at every width."""

EVERYTHING = "window, softcap, sink logits, padding"

MODIFIED: dict[str, dict[str, Any]] = {
    "sinks and window": {"pattern": pattern("sinks_window", window=1024, sinks=4)},
    "softcap": {"softcap": 30.0},
    "sink logits": {"has_sinks": True},
    "padding": {"has_padding": True},
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
    """

    name: str
    capabilities: tuple[int, ...]
    launch: Callable[[int], object]
    wants_wgmma: bool


def every_shipped() -> tuple[Shipped, ...]:
    """Everything that ships, by family."""
    return (
        *_flash_forward(),
        *_flash_backward(),
        *_decode(),
        *_block_sparse(),
        Shipped(
            name="exponentials",
            capabilities=CAPABILITIES,
            launch=_launch_exponentials,
            wants_wgmma=False,
        ),
    )


def _flash_forward() -> Iterator[Shipped]:
    entry = partial(_entry, "flash_forward", _launch_forward)
    for head_dim in HEAD_DIMS:
        for title, rule in PLAIN.items():
            yield entry(title, _call(head_dim, **rule))
    for head_dim in (64, 128, 256):
        for title, rule in MODIFIED.items():
            yield entry(title, _call(head_dim, **rule))
        yield entry("causal", _call(head_dim, "float32"))
    yield entry(EVERYTHING, _call(128, "float32", **MODIFIED[EVERYTHING]))
    yield entry("causal", _call(128, "float16"))
    yield entry("causal, values 128 wide", _call(192, value_dim=128))


def _flash_backward() -> Iterator[Shipped]:
    # One table of configurations serves all devices and is made for Hopper: on the others it spills.
    entry = partial(_entry, "flash_backward", _launch_backward, capabilities=(90,))
    for head_dim in (64, 128, 256):
        for title, rule in PLAIN.items():
            yield entry(title, _call(head_dim, **rule))
        yield entry(EVERYTHING, _call(head_dim, **MODIFIED[EVERYTHING]))
        yield entry("causal", _call(head_dim, "float32"))


def _decode() -> Iterator[Shipped]:
    # The queries of a group are 4 rows, 16 with padding: too few for warp-group instructions.
    entry = partial(_entry, "decode", _launch_decode, tall=False)
    one: dict[str, Any] = {"query_length": 1, "query_offset": _LENGTH - 1}
    for head_dim in (64, 128, 256):
        yield entry("causal", _call(head_dim, **one))
    yield entry(EVERYTHING, _call(128, **one, **MODIFIED[EVERYTHING]))
    yield entry("causal", _call(128, "float32", **one))
    for page_size in (16, 64):
        paged = partial(_launch_paged, page_size=page_size)
        call = _call(128, **one)
        yield _entry("paged_decode", paged, f"pages of {page_size}", call, tall=False)


def _block_sparse() -> Iterator[Shipped]:
    entry = partial(_entry, "block_sparse", _launch_block_sparse)
    rule: dict[str, Any] = {"pattern": pattern("sinks_window", window=1024, sinks=4, causal=True)}
    modified = {**MODIFIED[EVERYTHING], **rule}
    for head_dim in (64, 128, 256):
        yield entry("sinks and window", _call(head_dim, **rule))
    yield entry("sinks and window, softcap, sink logits, padding", _call(128, **modified))
    yield entry("sinks and window", _call(128, "float32", **rule))


def _entry(
    family: str,
    launch: Callable[[AttentionCall, int], object],
    title: str,
    call: AttentionCall,
    *,
    tall: bool = True,
    capabilities: tuple[int, ...] = CAPABILITIES,
) -> Shipped:
    return Shipped(
        name=f"{family}, {call.dtype}, {call.head_dim}, {title}",
        capabilities=tuple(each for each in HEAD_DIMS[call.head_dim] if each in capabilities),
        launch=partial(launch, call),
        wants_wgmma=tall and call.dtype != "float32",
    )


def _call(head_dim: int, dtype: Dtype = "bfloat16", **others: Any) -> AttentionCall:
    usual = AttentionCall(
        batch=2,
        query_heads=32,
        kv_heads=8,
        query_length=_LENGTH,
        key_length=_LENGTH,
        head_dim=head_dim,
        value_dim=head_dim,
        dtype=dtype,
        scale=head_dim**-0.5,
        pattern=pattern("causal"),
    )
    return replace(usual, **others)


def _launch_forward(call: AttentionCall, capability: int) -> None:
    config = forward_config(
        max(call.head_dim, call.value_dim),
        call.torch_dtype,
        divmod(capability, 10),
        bounded_before=_rule(call).bounded_before,
    )
    flash_forward(*_tensors(call), call, **_extras(call), config=config)


def _launch_backward(call: AttentionCall, capability: int) -> None:
    q_BHQD, k_BGKD, v_BGKD = _tensors(call)
    lse_BHQ = torch.empty(q_BHQD.shape[:3], device="meta")
    extras = _extras(call)
    chosen_for = (call.head_dim, call.torch_dtype, divmod(capability, 10))
    flash_backward(
        q_BHQD,
        k_BGKD,
        v_BGKD,
        extras["sinks_H"],
        extras["visible_keys_BK"],
        torch.empty_like(q_BHQD),
        lse_BHQ,
        torch.empty_like(q_BHQD),
        torch.empty_like(lse_BHQ),
        _rule(call),
        query_config=query_gradient_config(*chosen_for),
        key_config=key_gradient_config(*chosen_for),
    )


def _launch_decode(call: AttentionCall, capability: int) -> None:
    del capability
    # So many parts as a large device would have.
    decode(*_tensors(call), call, **_extras(call), parts=16)


def _launch_paged(call: AttentionCall, capability: int, *, page_size: int) -> None:
    del capability
    pages = call.key_length // page_size
    # A pool lies [pages, slots, heads, width] in memory.
    pool_PSGD = torch.empty(
        (call.batch * pages, page_size, call.kv_heads, call.head_dim),
        dtype=call.torch_dtype,
        device="meta",
    )
    store = KeyStore(
        k_PGSD=pool_PSGD.transpose(1, 2),
        v_PGSD=pool_PSGD.transpose(1, 2),
        table_BN=torch.empty(call.batch, pages, dtype=torch.int32, device="meta"),
        lengths_B=torch.empty(call.batch, dtype=torch.int32, device="meta"),
    )
    decode_over(_tensors(call)[0], store, call, **_extras(call), parts=16)


def _launch_block_sparse(call: AttentionCall, capability: int) -> None:
    config = sparse_config(
        max(call.head_dim, call.value_dim), call.torch_dtype, hopper=capability == 90
    )
    block_sparse(*_tensors(call), call, **_extras(call), config=config)


def _launch_exponentials(capability: int) -> None:
    del capability
    exponentials(torch.empty(2**24, device="meta"), 512)


def _rule(call: AttentionCall) -> FlashRule:
    rule = flash_rule(call)
    assert rule is not None, "only what the kernels take is listed"
    return rule


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
