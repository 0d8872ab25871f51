"""Goal K3: whether a pattern that shows less costs less, and beside FlexAttention on the same mask.

`efficiency` of a backend is the time of dense causal attention times the density, over the time the
pattern takes: 1 when the work is proportional to what is visited. Density is the share of blocks, of
those that the block-sparse kernel cuts, which hold a visible pair; `efficiency_by_pairs` takes the
share of pairs instead, which blocks can only approach. The dense time is the backend's own, or for a
kernel of ours that is for sparse patterns only, that of our fastest.
"""

from collections.abc import Iterator
from dataclasses import replace

from attnscope.kernels.call import AttentionCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.triton.block_plan import block_plan, sparse_config
from benchmarks.gpu.bench import Bench, Record, compared
from benchmarks.gpu.contenders import OURS


def calls(*, toy: bool) -> tuple[AttentionCall, ...]:
    """The plan: causal over 32k tokens, then patterns that keep 3 to 30 % of its blocks.

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
    return (causal, *(replace(causal, pattern=each) for each in (_toy() if toy else _real())))


def _real() -> tuple[Pattern, ...]:
    drawn = {"global_tokens": 128, "random_blocks": 16, "block": 64, "seed": 0}
    return (
        *(pattern("sliding_window", window=width) for width in (4096, 2048, 1024)),
        pattern("sinks_window", window=1024, sinks=4, causal=True),
        pattern("longformer", window=4096, global_tokens=64, causal=True),
        pattern("bigbird", window=17 * 64, causal=True, **drawn),
        pattern("strided", stride=512, causal=True),
        pattern("block_sparse", block=2048, stride=512, causal=True),
    )


def _toy() -> tuple[Pattern, ...]:
    drawn = {"global_tokens": 2, "random_blocks": 1, "block": 4, "seed": 0}
    return (
        pattern("sliding_window", window=8),
        pattern("bigbird", window=4, causal=True, **drawn),
    )


def sparse(bench: Bench) -> Iterator[Record]:
    """Every call of the plan, judged, timed, and held against the first, which is dense."""
    plan = calls(toy=bench.toy)
    pairs, blocks = [call.kept_pairs for call in plan], [_blocks(call) for call in plan]
    dense: dict[str, float] = {}
    for at, record in enumerate(compared(bench, plan, timed=True)):
        density, by_pairs = blocks[at] / blocks[0], pairs[at] / pairs[0]
        timed = {
            name: found["ms"]["median"]
            for name, found in record.get("backends", {}).items()
            if "ms" in found
        }
        dense = dense or timed
        for name, took in timed.items():
            of_dense = _dense_time(name, dense)
            if of_dense is not None:
                record["backends"][name] |= {
                    "efficiency": of_dense * density / took,
                    "efficiency_by_pairs": of_dense * by_pairs / took,
                }
        yield {**record, "density": density, "density_by_pairs": by_pairs, **_beside_flex(timed)}


def _blocks(call: AttentionCall) -> int:
    """Blocks that the block-sparse kernel visits on an H100 or H200."""
    config = sparse_config(call.head_dim, call.torch_dtype, hopper=True)
    return block_plan(
        call.pattern,
        query_length=call.query_length,
        key_length=call.key_length,
        query_offset=call.query_offset,
        block_queries=config.block_queries,
        block_keys=config.block_keys,
    ).blocks


def _dense_time(name: str, dense: dict[str, float]) -> float | None:
    ours = [took for each, took in dense.items() if each.startswith(OURS)]
    fastest = min(ours, default=None) if name.startswith(OURS) else None
    return dense.get(name, fastest)


def _beside_flex(timed: dict[str, float]) -> Record:
    ours = [took for name, took in timed.items() if name.startswith(OURS)]
    return {"flex_ratio": timed["flex"] / min(ours)} if ours and "flex" in timed else {}
