"""Whether the profiler's medians are true: against a plain loop, against themselves, and what marks cost.

    python -m benchmarks.profiler [--rounds 100]

Each round times the same call by the profiler and by a plain loop, a few runs each, in an order drawn
anew; on a busy machine the two differ by what else ran. So the profiler also times a call that times
itself: both clocks then see the very same runs. Writes
`benchmarks/results/<date>_<device>_profiler.jsonl`.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable

import torch

from attnscope.models.loading import load
from attnscope.models.parts import parts
from attnscope.models.passes import Passes
from attnscope.models.swapping import swapped
from attnscope.profiling.latency import Effort, clock_of, time_call
from attnscope.profiling.part_times import time_parts
from benchmarks.results import append, spread

Call = Callable[[], object]

CPU = torch.device("cpu")
GOAL_RATIO, GOAL_SPREAD = 0.03, 0.02
RUNS = 10
EFFORT = Effort(runs=RUNS, seconds=0, warmup_runs=3, warmup_seconds=0)


def plain_loop(call: Call) -> list[float]:
    """Seconds, as anyone would take them."""
    for _ in range(4):
        call()
    samples = []
    for _ in range(RUNS):
        began = time.perf_counter()
        call()
        samples.append(time.perf_counter() - began)
    return samples


def profiled(call: Call) -> list[float]:
    """Seconds, by the profiler."""
    return list(time_call(call, clock_of(CPU), EFFORT).samples_s)


def compared(name: str, call: Call, rounds: int) -> dict[str, object]:
    """The profiler's median over the plain loop's, all rounds together, and how each repeats itself."""
    draw = random.Random(0)
    taken: dict[str, list[list[float]]] = {"profiler": [], "plain loop": []}
    ways = [("profiler", profiled), ("plain loop", plain_loop)]
    for _ in range(rounds):
        draw.shuffle(ways)
        for way, timed in ways:
            taken[way].append(timed(call))
    pooled = {way: [each for samples in found for each in samples] for way, found in taken.items()}
    ours, theirs = (statistics.median(pooled[way]) for way in ("profiler", "plain loop"))
    return {
        "case": f"{name}: profiler over plain loop",
        "goal": GOAL_RATIO,
        "ratio": round(ours / theirs, 4),
        "ratio_same_runs": round(same_runs(call), 4),
        "goal_repeat": GOAL_SPREAD,
        "repeat": {
            way: _repeat([statistics.median(each) for each in found])
            for way, found in taken.items()
        },
        "profiler_ms": spread([1e3 * each for each in pooled["profiler"]]),
        "plain_loop_ms": spread([1e3 * each for each in pooled["plain loop"]]),
        "rounds": rounds,
        "runs_a_round": RUNS,
    }


def same_runs(call: Call) -> float:
    """The profiler's median over that of the same runs, timed from within."""
    inner: list[float] = []

    def timing_itself() -> None:
        began = time.perf_counter()
        call()
        inner.append(time.perf_counter() - began)

    found = time_call(timing_itself, clock_of(CPU), Effort(runs=300, seconds=0))
    return found.median_s / statistics.median(inner[-found.count :])


def _repeat(medians: list[float]) -> float:
    """Interquartile range of repeated medians over their median."""
    low, middle, high = statistics.quantiles(medians, n=4, method="inclusive")
    return round((high - low) / middle, 4)


def marks() -> dict[str, object]:
    """The demo's prefill with marks at every module over the same without, in turns."""
    model = load("demo", device="cpu")
    with model.lock, torch.no_grad(), swapped(model.model, "sdpa_flash"):
        passes = Passes(model, batch=1, length=512)
        effort = Effort(runs=40, seconds=0, warmup_runs=3)
        found = time_parts(passes.read, parts(model.model), clock_of(CPU), effort)
    return {
        "case": "marks at every module of the demo, 512 tokens, over the run without",
        "ratio": round(found.overhead.value, 4),
        "unsettled": found.overhead.unsettled,
        "marked_ms": spread([1e3 * each for each in found.watched.samples_s]),
    }


def main() -> None:
    """Makes every comparison and appends the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    chosen = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    a = torch.randn(256, 256)
    q = torch.randn(1, 8, 256, 64)
    cases = [
        ("matmul 256²", lambda: torch.mm(a, a)),
        (
            "SDPA, 8 heads, 256 tokens",
            lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q),
        ),
        ("one addition", lambda: a[0].add(1)),
    ]
    records = [compared(name, call, chosen.rounds) for name, call in cases]
    records.append(marks())
    for record in records:
        record |= {"threads": 1, "seed": 0}
        print(record, flush=True)
    print(append("profiler", records))


if __name__ == "__main__":
    main()
