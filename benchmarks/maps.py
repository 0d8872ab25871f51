"""How long the maps and diagnostics of a head take, on the processor alone.

    python -m benchmarks.maps [--threads 1] [--budget 10]

Each figure is the wall time of one call, and the processor time beside it: on a machine that does
other work too, the second is what the call itself costs. Writes one line a case to
`benchmarks/results/<date>_<device>_maps.jsonl`.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch

from attnscope.kernels import maps
from attnscope.kernels.diagnostics import diagnose
from attnscope.kernels.head import Head
from attnscope.kernels.patterns.causal import Causal
from benchmarks.results import append, spread

RULE = {"pattern": Causal(), "query_offset": 0}
LONG = 131_072
LEAST_RUNS, LEAST_SECONDS = 20, 2.0
REDUCTIONS: tuple[maps.Reduce, ...] = ("mean", "max")
Case = tuple[str, float, Callable[[], object]]
"""What is measured, the milliseconds to stay under, and the call."""


def head_of(length: int, width: int, dtype: torch.dtype = torch.float32) -> Head:
    """A causal head of random queries and keys, peaky enough that some weights underflow."""
    q, k = (3 * torch.randn(length, width), torch.randn(length, width))
    scale = width**-0.5
    # Of an exact log-sum-exp only the size matters here; at full length it would take a minute.
    rough = torch.arange(1, length + 1).log() + 4.5
    exact = length <= 16_384
    lse_Q = (
        maps.log_sum_exp(q[None, None], k[None, None], scale=scale, **RULE)[0, 0]
        if exact
        else rough
    )
    return Head(q_QD=q.to(dtype), k_KD=k.to(dtype), lse_Q=lse_Q, scale=scale, **RULE)


def long_cases() -> list[Case]:
    """What a viewer asks of a head of 131 072 tokens."""
    near, far = slice(100_000, 100_512), slice(5_000, 5_512)
    cases: list[Case] = []
    for width, dtype in (
        (32, torch.float32),
        (64, torch.float32),
        (128, torch.float32),
        (128, torch.bfloat16),
    ):
        head = head_of(LONG, width, dtype)
        name = f"{LONG} tokens, head_dim {width}, {str(dtype).removeprefix('torch.')}"
        cases += [
            (f"tile 512², off the diagonal, {name}", 3, lambda h=head: maps.tile(h, near, far)),
            (f"tile 512², on the diagonal, {name}", 3, lambda h=head: maps.tile(h, near, near)),
            (f"row, {name}", 10, lambda h=head: maps.row(h, LONG - 1)),
            (f"column, {name}", 10, lambda h=head: maps.column(h, 1000)),
        ]
    head = head_of(LONG, 64)
    cases += [
        (
            f"sampled 256², {each} queries a row, {LONG} tokens, head_dim 64",
            800,
            lambda each=each: maps.sampled(head, 256, 256, queries_per_row=each, reduce="max"),
        )
        for each in (1, 2, 4)
    ]
    return cases


def pooled_cases() -> list[Case]:
    """Whole maps, every pair read."""
    return [
        (
            f"pooled 512², {reduce}, {length} tokens, head_dim 64",
            limit,
            partial(maps.pooled, head, 512, 512, reduce=reduce),
        )
        for length, limit in ((4096, 150), (16_384, 2000))
        for head in (head_of(length, 64),)
        for reduce in REDUCTIONS
    ]


def layer_cases() -> list[Case]:
    """All heads of a layer, and of twelve."""
    cases: list[Case] = []
    q, k = 3 * torch.randn(12, 512, 64), torch.randn(12, 512, 64)
    lse = maps.log_sum_exp(q[None], k[None], scale=0.125, **RULE)[0]
    cases += [
        (
            f"overview 48², {reduce}, 12 heads, 512 tokens, head_dim 64",
            15,
            partial(maps.overview, q, k, lse, scale=0.125, size=48, reduce=reduce, **RULE),
        )
        for reduce in REDUCTIONS
    ]
    layers = [(3 * torch.randn(12, 1024, 64), torch.randn(12, 1024, 64)) for _ in range(12)]
    lses = [maps.log_sum_exp(q[None], k[None], scale=0.125, **RULE)[0] for q, k in layers]
    tokens = torch.randint(0, 400, (1024,))

    def every_head() -> None:
        for (q, k), lse in zip(layers, lses, strict=True):
            diagnose(q, k, lse, scale=0.125, token_ids_K=tokens, **RULE)

    cases.append(("diagnostics, 144 heads, 1024 tokens, head_dim 64", 5000, every_head))
    first, keys = layers[0]
    cases.append(
        (
            "log-sum-exp, 12 heads, 1024 tokens, head_dim 64",
            30,
            lambda: maps.log_sum_exp(first[None], keys[None], scale=0.125, **RULE),
        )
    )
    return cases


def timed(call: Callable[[], object], budget: float) -> dict[str, object]:
    """Milliseconds of the call: 20 runs or 2 s, whichever is longer, within the budget."""
    call()
    call()
    wall, busy = [], []
    began = time.perf_counter()
    while len(wall) < LEAST_RUNS or time.perf_counter() - began < LEAST_SECONDS:
        if len(wall) > 1 and time.perf_counter() - began > budget:
            break
        at, used = time.perf_counter(), time.process_time()
        call()
        wall.append(1e3 * (time.perf_counter() - at))
        busy.append(1e3 * (time.process_time() - used))
    return {
        "wall_ms": spread(wall),
        "processor_ms": spread(busy),
        "shortened": len(wall) < LEAST_RUNS,
    }


def main() -> None:
    """Times every case and appends the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--budget", type=float, default=10.0, help="seconds for one case at most")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    records = []
    for name, limit, call in (*layer_cases(), *pooled_cases(), *long_cases()):
        record = {"case": name, "limit_ms": limit, "threads": chosen.threads, "seed": 0}
        record |= timed(call, chosen.budget)
        records.append(record)
        print(
            f"{name}: {record['wall_ms']} wall, {record['processor_ms']} processor, ms", flush=True
        )
    print(append("maps", records))


if __name__ == "__main__":
    main()
