"""The kernels of maps that ship.

H query heads, Q, K positions.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from attnscope.kernels.bins import bin_edges
from attnscope.kernels.call import AttentionCall
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.patterns.predicate import Predicate
from attnscope.kernels.streaming import Layer
from attnscope.kernels.triton.configurations import FlashConfig, map_config, top_config
from attnscope.kernels.triton.maps_cells import map_cells
from attnscope.kernels.triton.maps_rows import Tokens, row_sums
from attnscope.kernels.triton.maps_top import top_keys
from attnscope.kernels.triton.shipped.entry import (
    EVERYTHING,
    HEAD_DIMS,
    LENGTH,
    MODIFIED,
    PLAIN,
    Shipped,
    call_of,
    entry_of,
    extras_of,
    tensors_of,
)

WINDOWS = (16, 64, 256)
EVEN, UNEVEN = 64, 100
"""Cells a side: of 64 positions each, which fill a tile, and of 40 or 41, which leave slots over."""


def _no_band(query: Tensor, key: Tensor) -> Tensor:
    return (query // 64 + key // 64) % 4 == 0


NO_BAND: Pattern = Predicate(function=_no_band, label="every fourth block")


def map_kernels() -> Iterator[Shipped]:
    """Pooled sums and maxima by width, dtype and rule; maps of other cuts; sums by query."""
    for head_dim in HEAD_DIMS:
        yield _cells("causal", call_of(head_dim))
    for head_dim in (64, 128, 256):
        yield _cells("full", call_of(head_dim, **PLAIN["full"]))
        yield _cells("causal", call_of(head_dim, "float32"))
        yield _cells("each pair", call_of(head_dim), LENGTH, sums=False)
        yield entry_of("row_sums", _launch_rows, "causal", call_of(head_dim))
        yield entry_of("row_sums", _launch_rows, "causal", call_of(head_dim, "float32"))
        everything = call_of(head_dim, **MODIFIED[EVERYTHING])
        yield entry_of("row_sums", _launch_rows, EVERYTHING, everything)
        yield entry_of("top_keys", _launch_top, "causal", call_of(head_dim))
        yield entry_of("top_keys", _launch_top, "causal", call_of(head_dim, "float32"))
    for title, rule in (PLAIN | MODIFIED).items():
        yield _cells(f"{title}, uneven", call_of(128, **rule), UNEVEN)
    yield _cells("no band", call_of(128, pattern=NO_BAND))
    yield _cells("scores", call_of(128), worth="score")
    yield _cells("causal", call_of(128, "float16"))


def _cells(title: str, call: AttentionCall, cells: int = EVEN, **asked: Any) -> Shipped:
    return entry_of("map_cells", partial(_launch_cells, cells, asked), title, call)


def _launch_cells(cells: int, asked: dict[str, Any], call: AttentionCall, capability: int) -> None:
    layer, lse_HQ, config = _layer_of(call, capability)
    edges = bin_edges(0, LENGTH, cells)
    map_cells(layer, lse_HQ, edges, edges, **{"maxima": True, **asked}, config=config)


def _launch_rows(call: AttentionCall, capability: int) -> None:
    layer, lse_HQ, config = _layer_of(call, capability)
    token_K = torch.empty(LENGTH, dtype=torch.int64, device="meta")
    tokens = Tokens(of_Q=token_K, of_K=token_K, before_K=token_K)
    chosen_K = torch.empty(LENGTH, dtype=torch.bool, device="meta")
    row_sums(layer, lse_HQ, chosen_K, WINDOWS, tokens, config=config)


def _launch_top(call: AttentionCall, capability: int) -> None:
    layer, _, _ = _layer_of(call, capability)
    config = top_config(call.head_dim, call.torch_dtype, divmod(capability, 10))
    top_keys(layer, 8, config=config)


def _layer_of(call: AttentionCall, capability: int) -> tuple[Layer, Tensor, FlashConfig]:
    """The first sequence of a call, and how its maps are cut."""
    q_BHQD, k_BGKD, _ = tensors_of(call)
    seen_BK = extras_of(call)["visible_keys_BK"]
    layer = Layer(
        q_HQD=q_BHQD[0],
        k_GKD=k_BGKD[0],
        pattern=call.pattern,
        query_offset=call.query_offset,
        scale=call.scale,
        softcap=call.softcap,
        visible_keys_K=None if seen_BK is None else seen_BK[0],
    )
    config = map_config(call.head_dim, call.torch_dtype, divmod(capability, 10))
    return layer, torch.empty(q_BHQD.shape[1:3], device="meta"), config
