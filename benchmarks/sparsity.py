"""What it costs to try patterns on every head, on the processor alone.

    python -m benchmarks.sparsity [--threads 2] [--rounds 3]

Mass and error of 12 patterns over 144 heads (12 layers of 12, 64 wide: GPT-2's) at 1 024 tokens, expected under
30 s on two cores; then the three patterns fitted to one such head at a tenth of its pairs, and the empirical mask
of 95 % of its mass. Heads are random, peaky as trained ones are: no arithmetic depends on it. Whether the tiled
kernel is faster within a window, and the block masks at 131 072 tokens, are measured by `benchmarks.patterns`.
Appends to `benchmarks/results/<date>_<device>_sparsity.jsonl`.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from attnscope.kernels.empirical import KeyRule, empirical_mask
from attnscope.kernels.fitted import fitted
from attnscope.kernels.head import Head
from attnscope.kernels.log_sum_exp import log_sum_exp
from attnscope.kernels.pattern_effect import effects
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.streaming import Layer
from benchmarks.results import append, spread

LAYERS, HEADS, LENGTH, WIDTH = 12, 12, 1024, 64
LIMIT_S = 30
"""Seconds of all heads and patterns, to stay under."""

BIGBIRD: dict[str, Any] = {"global_tokens": 64, "random_blocks": 3, "block": 64, "seed": 0}
PATTERNS = (
    pattern("sliding_window", window=128),
    pattern("sinks_window", window=128, sinks=4),
    pattern("dilated", window=256, dilation=2),
    pattern("longformer", window=256, global_tokens=8),
    pattern("bigbird", window=192, **BIGBIRD),
    pattern("strided", stride=16),
    pattern("strided_slide", stride=16),
    pattern("block_sparse", block=32, stride=16),
    pattern("axial", height=32, width=32),
    pattern("chunked", chunk=128),
    pattern(
        "vertical_slash", columns=range(0, 1024, 100), diagonals=(*range(64), *range(64, 1024, 50))
    ),
    pattern("block_list", block=64, rows=[range(row % 4, row + 1, 4) for row in range(16)]),
)

Record = dict[str, object]


def layer() -> tuple[Layer, torch.Tensor, torch.Tensor]:
    """A causal layer, its log-sum-exp and its values."""
    q_HQD, k_HKD, v_HKD = (torch.randn(HEADS, LENGTH, WIDTH) for _ in range(3))
    made = Layer(
        q_HQD=2 * q_HQD, k_GKD=k_HKD, pattern=pattern("causal"), query_offset=0, scale=0.125
    )
    lse_BHQ = log_sum_exp(
        made.q_HQD[None], k_HKD[None], pattern=made.pattern, query_offset=0, scale=made.scale
    )
    return made, lse_BHQ[0], v_HKD


def head() -> Head:
    """The first head of a layer."""
    made, lse_HQ, _ = layer()
    return Head(
        q_QD=made.q_HQD[0],
        k_KD=made.k_GKD[0],
        lse_Q=lse_HQ[0],
        pattern=made.pattern,
        query_offset=0,
        scale=made.scale,
    )


def measured(rounds: int) -> Iterator[Record]:
    """Each figure with its limit, where it has one."""
    layers = [layer() for _ in range(LAYERS)]
    one = head()
    effects(*layers[0], PATTERNS)

    def every_head() -> None:
        for made in layers:
            effects(*made, PATTERNS)

    whole: Record = {"patterns": len(PATTERNS), "heads": LAYERS * HEADS, "limit_s": LIMIT_S}
    works: tuple[tuple[str, Callable[[], object], Record], ...] = (
        ("mass and error", every_head, whole),
        ("patterns fitted", lambda: fitted(one, 0.1), {"heads": 1}),
        (
            "empirical mask",
            lambda: empirical_mask(one, KeyRule(kind="mass", value=0.95)),
            {"heads": 1},
        ),
    )
    for what, work, facts in works:
        yield {"what": what, "length": LENGTH, "head_dim": WIDTH, **facts, **_timed(work, rounds)}


def _timed(work: Callable[[], object], rounds: int) -> Record:
    wall, busy = [], []
    for _ in range(rounds):
        at, used = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - at)
        busy.append(time.process_time() - used)
    return {"wall_s": spread(wall), "processor_s": spread(busy)}


def main() -> None:
    """Measures and appends the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    records = []
    for record in measured(chosen.rounds):
        records.append({**record, "threads": chosen.threads, "seed": 0})
        print(record, flush=True)
    print(append("sparsity", records))


if __name__ == "__main__":
    main()
