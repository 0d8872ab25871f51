"""Goal K2: one query against a long cache, where nothing but reading the cache takes time.

`of_copy` is the share of the bandwidth of a large copy at which q, k, v and the output, each once,
went by. Both the share and the ratio to the best peer are what the goal is stated in. The same
cache is read once as it lies and once in shuffled pages, under the name `triton_paged`.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim; P pages of a pool, S slots of a
page.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from attnscope.kernels.call import AttentionCall
from attnscope.kernels.patterns.catalogue import pattern
from benchmarks.gpu.bench import Bench, Record, compared
from benchmarks.gpu.contenders import Contender
from tests.inputs import Inputs

HEADS = ((32, 8), (64, 8), (32, 4))
"""Query heads and kv heads of models that are used."""

PAGE, TOY_PAGE = 64, 16
"""Keys of a page; every length of the plan is whole pages."""


def calls(*, toy: bool) -> tuple[AttentionCall, ...]:
    """The plan: 1, 8 and 32 sequences of 4k, 32k and 128k keys, head_dim 128; the longest first.

    Args:
        toy: Tiny, and in float16, which Triton's interpreter can multiply.
    """
    head_dim = 16 if toy else 128
    return tuple(
        AttentionCall(
            batch=batch,
            query_heads=query_heads,
            kv_heads=kv_heads,
            query_length=1,
            key_length=length,
            head_dim=head_dim,
            value_dim=head_dim,
            dtype="float16" if toy else "bfloat16",
            scale=head_dim**-0.5,
            pattern=pattern("causal"),
            query_offset=length - 1,
        )
        for length in ((48,) if toy else (131_072, 32_768, 4096))
        for query_heads, kv_heads in (((4, 2),) if toy else HEADS)
        for batch in ((1, 2) if toy else (32, 8, 1))
    )


def decode(bench: Bench) -> Iterator[Record]:
    """Every call of the plan, judged and timed; `paged_speed_ratio` is that of the pages alone."""
    page = TOY_PAGE if bench.toy else PAGE
    plan = calls(toy=bench.toy)
    for record in compared(bench, plan, timed=True, further=partial(further, page=page)):
        if "best_peer" in record and "ms" in record["backends"]["triton_paged"]:
            peer, ours = (
                record["backends"][name]["ms"]["median"]
                for name in (record["best_peer"], "triton_paged")
            )
            record["paged_speed_ratio"] = peer / ours
        yield record


def further(asked: Inputs, *, page: int) -> tuple[list[Contender], dict[str, str]]:
    """Ours over pages."""
    return [Contender(name="triton_paged", run=_paged(asked, page))], {}


def _paged(asked: Inputs, page: int) -> Any:
    # Here and not above: the plan can be read where there is no Triton.
    from attnscope.kernels.triton.paged import paged_decode

    call, device = asked.call, asked.q_BHQD.device
    pages = call.batch * call.key_length // page
    order_P = torch.randperm(pages, device=device)
    pool_k, pool_v = (_pool(t, page, order_P) for t in (asked.k_BGKD, asked.v_BGKD))
    return partial(
        paged_decode,
        asked.q_BHQD,
        pool_k,
        pool_v,
        table_BN=order_P.int().reshape(call.batch, -1),
        lengths_B=torch.full((call.batch,), call.key_length, dtype=torch.int32, device=device),
        pattern=call.pattern,
        scale=call.scale,
    )


def _pool(keys_BGKD: Tensor, page: int, order_P: Tensor) -> Tensor:
    """`[P, S, G, D]`: page n of the sequences, counted through them, lies at `order_P[n]`."""
    pages_PSGD = keys_BGKD.transpose(1, 2).reshape(-1, page, *keys_BGKD.shape[1::2])
    return torch.empty_like(pages_PSGD).index_copy_(0, order_P, pages_PSGD)
