"""The decoding kernels that ship, contiguous and paged."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from attnscope.kernels.call import AttentionCall
from attnscope.kernels.triton.decode import KeyStore, decode, decode_over
from attnscope.kernels.triton.shipped.entry import (
    BIASED,
    EVERYTHING,
    LENGTH,
    MODIFIED,
    Shipped,
    call_of,
    entry_of,
    extras_of,
    tensors_of,
)

_PARTS = 16
"""As a large device would have of a short batch."""


def decodes() -> Iterator[Shipped]:
    """One query a sequence, by width and store of keys."""
    # The queries of a group are 4 rows, 16 with padding: too few for warp-group instructions.
    entry = partial(entry_of, "decode", _launch_decode, tall=False)
    one: dict[str, Any] = {"query_length": 1, "query_offset": LENGTH - 1}
    for head_dim in (64, 128, 256):
        yield entry("causal", call_of(head_dim, **one))
    yield entry(EVERYTHING, call_of(128, **one, **MODIFIED[EVERYTHING]))
    # A batch that fills the device is not split.
    whole = partial(entry_of, "decode", partial(_launch_decode, parts=1), tall=False)
    yield whole("one split", call_of(128, **one))
    # As decoders of T5 attend, which share no keys.
    biased: dict[str, Any] = {**one, "has_distance_bias": True}
    yield entry(BIASED, call_of(64, kv_heads=32, **biased))
    yield entry(BIASED, call_of(128, **biased))
    yield entry("causal", call_of(128, "float32", **one))
    for page_size in (16, 64):
        paged = partial(_launch_paged, page_size=page_size)
        call = call_of(128, **one)
        yield entry_of("paged_decode", paged, f"pages of {page_size}", call, tall=False)
    paged = partial(_launch_paged, page_size=16)
    yield entry_of(
        "paged_decode", paged, f"pages of 16, {BIASED}", call_of(128, **biased), tall=False
    )


def _launch_decode(call: AttentionCall, capability: int, *, parts: int = _PARTS) -> None:
    del capability
    decode(*tensors_of(call), call, **extras_of(call), parts=parts)


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
    extras = {"distance_bias_HR": None, **extras_of(call)}
    decode_over(tensors_of(call)[0], store, call, **extras, parts=_PARTS)
