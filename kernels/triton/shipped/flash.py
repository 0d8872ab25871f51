"""The flash kernels that ship."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from attnscope.kernels.call import AttentionCall
from attnscope.kernels.triton.configurations import (
    forward_config,
    key_gradient_config,
    query_gradient_config,
)
from attnscope.kernels.triton.flash_backward import flash_backward
from attnscope.kernels.triton.flash_forward import flash_forward
from attnscope.kernels.triton.flash_rule import FlashRule, documents_of, flash_rule
from attnscope.kernels.triton.shipped.entry import (
    BIASED,
    EVERYTHING,
    HEAD_DIMS,
    MODIFIED,
    PLAIN,
    Shipped,
    call_of,
    entry_of,
    extras_of,
    tensors_of,
)

FULL_BIASED: dict[str, Any] = {**PLAIN["full"], "has_padding": True, "has_distance_bias": True}
"""As T5's encoder attends, whose heads are 64 wide."""


def flash_forwards() -> Iterator[Shipped]:
    """Forward, by width, dtype and rule."""
    entry = partial(entry_of, "flash_forward", _launch_forward)
    for head_dim in HEAD_DIMS:
        for title, rule in PLAIN.items():
            yield entry(title, call_of(head_dim, **rule))
    for head_dim in (64, 128, 256):
        for title, rule in MODIFIED.items():
            yield entry(title, call_of(head_dim, **rule))
        yield entry(BIASED, call_of(head_dim, has_distance_bias=True))
        yield entry("causal", call_of(head_dim, "float32"))
    yield entry(EVERYTHING, call_of(128, "float32", **MODIFIED[EVERYTHING]))
    yield entry("causal", call_of(128, "float16"))
    for dtype in ("bfloat16", "float32"):
        yield entry(f"full, padding, {BIASED}", call_of(64, dtype, **FULL_BIASED))
    yield entry("causal, values 128 wide", call_of(192, value_dim=128))


def flash_backwards() -> Iterator[Shipped]:
    """Both kernels of the gradient."""
    entry = partial(entry_of, "flash_backward", _launch_backward)
    for head_dim in (64, 128, 256):
        for title, rule in PLAIN.items():
            yield entry(title, call_of(head_dim, **rule))
        for title in ("packed", EVERYTHING):
            yield entry(title, call_of(head_dim, **MODIFIED[title]))
        yield entry(BIASED, call_of(head_dim, has_distance_bias=True))
        yield entry("causal", call_of(head_dim, "float32"))
    yield entry(f"full, padding, {BIASED}", call_of(64, **FULL_BIASED))


def _launch_forward(call: AttentionCall, capability: int) -> None:
    config = forward_config(
        max(call.head_dim, call.value_dim),
        call.torch_dtype,
        divmod(capability, 10),
        bounded_before=_rule(call).bounded_before,
    )
    flash_forward(*tensors_of(call), call, **extras_of(call), config=config)


def _launch_backward(call: AttentionCall, capability: int) -> None:
    q_BHQD, k_BGKD, v_BGKD = tensors_of(call)
    lse_BHQ = torch.empty(q_BHQD.shape[:3], device="meta")
    extras = extras_of(call)
    chosen_for = (call.head_dim, call.torch_dtype, divmod(capability, 10))
    flash_backward(
        q_BHQD,
        k_BGKD,
        v_BGKD,
        extras["sinks_H"],
        extras["visible_keys_BK"],
        documents_of(call, q_BHQD.device),
        extras.get("distance_bias_HR"),
        torch.empty_like(q_BHQD),
        lse_BHQ,
        torch.empty_like(q_BHQD),
        torch.empty_like(lse_BHQ),
        _rule(call),
        query_config=query_gradient_config(*chosen_for),
        key_config=key_gradient_config(*chosen_for),
    )


def _rule(call: AttentionCall) -> FlashRule:
    rule = flash_rule(call)
    assert rule is not None, "only what the kernels take is listed"
    return rule
