"""Goal K5: every backend against float64 at real sizes, in every kind of call it takes.

Beside them the kernel in Gluon, which no backend answers with before it was measured.
"""

from collections.abc import Iterator
from dataclasses import replace

from attnscope.kernels.call import AttentionCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.patterns.composed import compose
from benchmarks.gpu.bench import Bench, Record, compared
from benchmarks.gpu.trial import gluon_of


def calls(*, toy: bool) -> tuple[AttentionCall, ...]:
    """The plan: one ordinary call, and what differs from it one thing at a time.

    Args:
        toy: Tiny, and in float16, which Triton's interpreter can multiply.
    """
    length, heads, kv_heads = (24, 2, 1) if toy else (4096, 16, 4)
    window = 8 if toy else 1000
    documents = (3, 11, 2) if toy else (1000, 1, 2500, 200)
    plain = AttentionCall(
        batch=2,
        query_heads=heads,
        kv_heads=kv_heads,
        query_length=length,
        key_length=length,
        head_dim=16 if toy else 128,
        value_dim=16 if toy else 128,
        dtype="float16" if toy else "bfloat16",
        scale=0.25 if toy else 128**-0.5,
        pattern=pattern("causal"),
    )
    few, many = (3, 24) if toy else (300, 8192)
    cached = {"query_length": few, "key_length": many, "query_offset": many - few}
    return (
        plain,
        replace(plain, dtype="float32"),
        replace(plain, softcap=20.0),
        replace(plain, has_padding=True),
        replace(plain, pattern=pattern("sliding_window", window=window)),
        replace(plain, has_distance_bias=True),
        replace(plain, pattern=pattern("packed", lengths=documents, causal=True)),
        # Heads whose width is no power of 2.
        replace(plain, head_dim=24, value_dim=24) if toy else _wide(plain, 112),
        *(() if toy else _further(plain)),
        replace(plain, **cached),
        replace(plain, **cached, has_distance_bias=True),
        replace(plain, pattern=pattern("full"), query_length=length - 1, key_length=length - 1),
    )


def _further(plain: AttentionCall) -> tuple[AttentionCall, ...]:
    """What the interpreter has no time for."""
    long = {"batch": 1, "query_heads": 2, "kv_heads": 1}
    window = pattern("sliding_window", window=1000)
    biased = replace(plain, has_distance_bias=True)
    return (
        replace(plain, dtype="float16"),
        replace(plain, pattern=pattern("full")),
        *(_wide(plain, head_dim) for head_dim in (64, 80, 96, 192, 256)),
        _wide(plain, 192, 128),
        _wide(plain, 16),
        replace(plain, kv_heads=1),
        replace(plain, has_sinks=True),
        replace(plain, has_sinks=True, pattern=window, softcap=20.0),
        replace(plain, pattern=window, has_padding=True),
        replace(plain, pattern=pattern("local", window=999)),
        replace(plain, pattern=pattern("packed", lengths=(700, 1300, 1, 900))),
        replace(plain, pattern=compose(pattern("packed", lengths=(1500, 2000)), window)),
        replace(plain, pattern=pattern("sinks_window", window=1000, sinks=4, causal=True)),
        # As T5 attends, and in every other way.
        replace(_wide(biased, 64), kv_heads=16, pattern=pattern("full"), has_padding=True),
        replace(biased, pattern=window, softcap=20.0, has_padding=True),
        replace(biased, pattern=pattern("packed", lengths=(1000, 1, 2500, 200), causal=True)),
        replace(biased, pattern=pattern("longformer", window=500, global_tokens=16)),
        replace(biased, dtype="float32"),
        replace(biased, query_length=1, key_length=30_000, query_offset=29_999),
        replace(plain, query_length=1, key_length=30_000, query_offset=29_999),
        replace(plain, query_length=8, key_length=8192, query_offset=8184),
        replace(plain, **long, query_length=32_768, key_length=32_768),
    )


def _wide(plain: AttentionCall, head_dim: int, value_dim: int | None = None) -> AttentionCall:
    dims = {"head_dim": head_dim, "value_dim": value_dim or head_dim}
    return replace(plain, **dims, scale=head_dim**-0.5)


def errors(bench: Bench) -> Iterator[Record]:
    """Every call of the plan, judged; nothing is timed."""
    return compared(bench, calls(toy=bench.toy), timed=False, further=gluon_of)
