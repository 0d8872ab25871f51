"""What sparsity patterns cost to plan, and what they save, on the processor alone.

    python -m benchmarks.patterns [--threads 1] [--rounds 7]

First the block mask, the count of pairs and the plan of the block-sparse kernel for every family at
131 072 tokens, each in a process of its own: milliseconds, and MiB added to the process at its peak.
Then the tiled kernel over patterns beside PyTorch's causal flash attention, in turns:
`efficiency` is (dense time × density) / sparse time, density the share of causal attention's pairs.
Appends to `benchmarks/results/<date>_<device>_patterns.jsonl`.
"""

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import torch

from attnscope.kernels.call import AttentionCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.registry import backend
from attnscope.kernels.triton.block_plan import block_plan
from benchmarks.results import append, spread

LONG, BLOCK = 131_072, 128
LIMITS = {"limit_ms": 1000, "limit_mib": 200}
"""To stay under."""

SMALL_BLOCKS: dict[str, Any] = {"random_blocks": 3, "block": 64, "seed": 0}
FAMILIES = (
    pattern("local", window=4096),
    pattern("sliding_window", window=4096),
    pattern("sinks_window", window=4096, sinks=4),
    pattern("dilated", window=8192, dilation=4),
    pattern("longformer", window=4096, global_tokens=16),
    pattern("bigbird", window=192, global_tokens=64, **SMALL_BLOCKS),
    pattern("strided", stride=128),
    pattern("strided_slide", stride=100),
    pattern("block_sparse", block=128, stride=100),
    pattern("axial", height=363, width=362),
    pattern("chunked", chunk=8192),
    pattern(
        "vertical_slash",
        columns=range(0, LONG, 1311),
        diagonals=(*range(1024), *range(1024, LONG, 257)),
    ),
    pattern("block_list", block=64, rows=[range(row % 8, row + 1, 8) for row in range(LONG // 64)]),
)

Record = dict[str, object]


def planned() -> Iterator[Record]:
    """Block mask, count and plan of every family, and of each with causal on top."""
    for found in FAMILIES:
        for each in (found, pattern(found.key, causal=True, **found.parameters)):
            for what, call in (("block mask", _mask), ("kept pairs", _count), ("plan", _plan)):
                # A process keeps its highest mark of memory: a fork begins where its parent stands.
                with multiprocessing.get_context("fork").Pool(1) as alone:
                    measured = alone.apply(_measured, (call, each))
                yield {"what": what, "pattern": each.title, "length": LONG, **LIMITS, **measured}


def _measured(call: Callable[[Pattern], object], found: Pattern) -> Record:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    at, used = time.perf_counter(), time.process_time()
    call(found)
    wall, busy = time.perf_counter() - at, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "wall_ms": round(1e3 * wall, 1),
        "processor_ms": round(1e3 * busy, 1),
        "peak_mib": round(peak / 1024, 1),
    }


def _mask(found: Pattern) -> object:
    return found.block_mask(LONG, LONG, BLOCK)


def _count(found: Pattern) -> object:
    return found.kept_pairs(LONG, LONG)


def _plan(found: Pattern) -> object:
    lengths = {"query_length": LONG, "key_length": LONG, "query_offset": 0}
    return block_plan(found, **lengths, block_queries=BLOCK, block_keys=64)


def saved(rounds: int) -> Iterator[Record]:
    """The tiled kernel over each pattern, in turns with dense causal attention."""
    for length in (4096, 8192, 16_384, 32_768):
        call = AttentionCall(
            batch=1,
            query_heads=2,
            kv_heads=2,
            query_length=length,
            key_length=length,
            head_dim=64,
            value_dim=64,
            dtype="float32",
            scale=0.125,
            pattern=pattern("causal"),
        )
        tensors = tuple(torch.randn(1, 2, length, 64) for _ in range(3))
        for chosen in (
            pattern("sliding_window", window=512),
            pattern("sliding_window", window=1024),
            pattern("longformer", window=1024, global_tokens=16, causal=True),
            pattern("bigbird", window=576, global_tokens=64, causal=True, **SMALL_BLOCKS),
            pattern("strided", stride=128, causal=True),
        ):
            yield _beside_dense(tensors, call, chosen, rounds)


def _beside_dense(
    tensors: tuple[torch.Tensor, ...], dense: AttentionCall, chosen: Pattern, rounds: int
) -> Record:
    q_BHQD, k_BGKD, v_BGKD = tensors
    sparse = AttentionCall.of(q_BHQD, k_BGKD, v_BGKD, pattern=chosen, scale=dense.scale)
    samples: dict[str, list[float]] = {"sdpa_flash, causal": [], "tiled": []}
    for _ in range(rounds):
        for (name, took), call in zip(samples.items(), (dense, sparse), strict=True):
            at = time.process_time()
            backend(name.partition(",")[0]).run(q_BHQD, k_BGKD, v_BGKD, call)
            took.append(1e3 * (time.process_time() - at))
    density = sparse.kept_pairs / dense.kept_pairs
    whole, part = (statistics.median(took) for took in samples.values())
    return {
        "what": "tiled beside dense",
        "pattern": chosen.title,
        "length": dense.query_length,
        "density": round(density, 4),
        "efficiency": round(whole * density / part, 3),
        "processor_ms": {name: spread(took) for name, took in samples.items()},
    }


def main() -> None:
    """Measures and appends the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    records = []
    for record in chain(planned(), saved(chosen.rounds)):
        records.append({**record, "threads": chosen.threads, "seed": 0})
        print(record, flush=True)
    print(append("patterns", records))


if __name__ == "__main__":
    main()
