"""Goal K3: whether a pattern that shows less costs less.

`efficiency` of a backend is the time that its own causal attention would take over as many pairs,
over the time it takes: 1 when the work is proportional to what is visible.
"""

from collections.abc import Iterator
from dataclasses import replace

from attnscope.kernels.call import AttentionCall
from attnscope.kernels.patterns.catalogue import pattern
from benchmarks.gpu.bench import Bench, Record, compared


def calls(*, toy: bool) -> tuple[AttentionCall, ...]:
    """The plan: causal over 32k tokens, then windows of 4k, 2k and 1k, and sinks with a window.

    Args:
        toy: Tiny, and in float16, which Triton's interpreter can multiply.
    """
    length, head_dim = (48, 16) if toy else (32_768, 128)
    causal = AttentionCall(
        batch=1,
        query_heads=2 if toy else 16,
        kv_heads=1 if toy else 4,
        query_length=length,
        key_length=length,
        head_dim=head_dim,
        value_dim=head_dim,
        dtype="float16" if toy else "bfloat16",
        scale=head_dim**-0.5,
        pattern=pattern("causal"),
    )
    widths = (8,) if toy else (4096, 2048, 1024)
    windows = [pattern("sliding_window", window=width) for width in widths]
    sinks = pattern("sinks_window", window=widths[-1], sinks=4, causal=True)
    return (causal, *(replace(causal, pattern=each) for each in (*windows, sinks)))


def windows(bench: Bench) -> Iterator[Record]:
    """Every call of the plan, judged, timed, and held against the first, which is causal."""
    plan = calls(toy=bench.toy)
    pairs = [call.kept_pairs for call in plan]
    dense: dict[str, float] = {}
    for record, kept in zip(compared(bench, plan, timed=True), pairs, strict=True):
        for name, found in record.get("backends", {}).items():
            if "ms" not in found:
                continue
            a_pair = found["ms"]["median"] / kept
            found["efficiency"] = dense.setdefault(name, a_pair) / a_pair
        yield {**record, "density": kept / pairs[0]}
