"""The block-sparse kernel that ships."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from attnscope.kernels.call import AttentionCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.triton.block_plan import sparse_config
from attnscope.kernels.triton.block_sparse import block_sparse
from attnscope.kernels.triton.shipped.entry import (
    BIASED,
    EVERYTHING,
    MODIFIED,
    Shipped,
    call_of,
    entry_of,
    extras_of,
    tensors_of,
)


def block_sparses() -> Iterator[Shipped]:
    """By width, and with every modifier; a pattern is data to the kernel, so any one stands for all."""
    entry = partial(entry_of, "block_sparse", _launch_block_sparse)
    rule: dict[str, Any] = {"pattern": pattern("sinks_window", window=1024, sinks=4, causal=True)}
    modified = {**MODIFIED[EVERYTHING], **rule}
    plain, everything = "sinks and window", "sinks and window, softcap, sink logits, padding"
    for head_dim in (64, 128, 256):
        yield entry(plain, call_of(head_dim, **rule))
    yield entry(everything, call_of(128, **modified))
    yield entry(f"{plain}, {BIASED}", call_of(128, has_distance_bias=True, **rule))
    yield entry(plain, call_of(128, "float32", **rule))
    yield entry(everything, call_of(128, "float32", **modified))


def _launch_block_sparse(call: AttentionCall, capability: int) -> None:
    config = sparse_config(
        max(call.head_dim, call.value_dim), call.torch_dtype, hopper=capability == 90
    )
    block_sparse(*tensors_of(call), call, **extras_of(call), config=config)
