"""Goal K2: one query against a long cache, where nothing but reading the cache takes time.

`of_copy` is the share of the bandwidth of a large copy at which q, k, v and the output, each once,
went by. Both the share and the ratio to the best peer are what the goal is stated in.
"""

from collections.abc import Iterator

from attnscope.kernels.call import AttentionCall
from attnscope.kernels.patterns.catalogue import pattern
from benchmarks.gpu.bench import Bench, Record, compared

HEADS = ((32, 8), (64, 8), (32, 4))
"""Query heads and kv heads of models that are used."""


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
    """Every call of the plan, judged and timed."""
    return compared(bench, calls(toy=bench.toy), timed=True)
