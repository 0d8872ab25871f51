"""The linear-attention kernels that ship."""

from collections.abc import Iterator
from functools import partial

import torch

from attnscope.kernels.call import AttentionCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.patterns.causal import Causal
from attnscope.kernels.triton.linear_forward import linear_forward
from attnscope.kernels.triton.linear_plan import fits
from attnscope.kernels.triton.shipped.entry import (
    Shipped,
    call_of,
    entry_of,
    extras_of,
    tensors_of,
)

RANDOM_FEATURES = 256
"""As many as the Performer backend has."""


def linears() -> Iterator[Shipped]:
    """With elu + 1 made inside by width and dtype, and with random features given."""
    entry = partial(entry_of, "linear", _launch)
    for head_dim in (64, 128, 256):
        yield entry("causal", call_of(head_dim))
        yield entry("full", call_of(head_dim, pattern=pattern("full")))
        if fits(head_dim, torch.float32):
            yield entry("causal", call_of(head_dim, "float32"))
    yield entry("causal", call_of(128, "float16"))
    yield entry("causal, padding", call_of(128, has_padding=True))
    given = partial(entry_of, "linear", _launch_given)
    for head_dim in (64, 128):
        yield given(f"causal, {RANDOM_FEATURES} features given", call_of(head_dim))


def _launch(call: AttentionCall, capability: int) -> None:
    del capability
    linear_forward(
        *tensors_of(call),
        elu=True,
        causal=isinstance(call.pattern, Causal),
        visible_keys_BK=extras_of(call)["visible_keys_BK"],
    )


def _launch_given(call: AttentionCall, capability: int) -> None:
    del capability
    q_BHQD, k_BGKD, v_BGKD = tensors_of(call)
    q_BHQF, k_BGKF = (
        torch.empty(*tensor.shape[:3], RANDOM_FEATURES, dtype=tensor.dtype, device="meta")
        for tensor in (q_BHQD, k_BGKD)
    )
    linear_forward(q_BHQF, k_BGKF, v_BGKD, elu=False, causal=True)
