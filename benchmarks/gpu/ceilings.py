"""What the device can do at most, measured in the run whose figures are held against it."""

import statistics
from dataclasses import dataclass

import torch

from attnscope.kernels.triton.exponentials import exponentials
from attnscope.profiling.probes import Probe, copy_probe, matmul_probe
from benchmarks.gpu.stopwatch import Stopwatch, alternate
from benchmarks.results import spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How large the probes are.

    Attributes:
        matmul: Rows, columns and depth of a bfloat16 product.
        copied_bytes: Copied from one place of the device's memory to another.
        exponentials: float32 numbers, a multiple of 2048.
        rounds: Exponentials of each.
    """

    matmul: int
    copied_bytes: int
    exponentials: int
    rounds: int


REAL = Sizes(matmul=8192, copied_bytes=2**32, exponentials=2**24, rounds=1024)
TOY = Sizes(matmul=64, copied_bytes=2**20, exponentials=2048, rounds=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """Rates of the device, a second.

    Attributes:
        matmul_flops: FLOP of a large bfloat16 product of random numbers.
        copy_bytes: Bytes read plus bytes written by a large copy.
        exponentials: float32 exponentials (base 2).
    """

    matmul_flops: float
    copy_bytes: float
    exponentials: float


def ceilings(
    device: torch.device, watch: Stopwatch, sizes: Sizes, *, seconds: float
) -> tuple[Ceilings, dict[str, object]]:
    """Measures the three, in turns.

    Returns:
        The rates, and the record with the milliseconds behind them.
    """
    x_N = torch.rand(sizes.exponentials, device=device)
    probes = {
        "matmul": matmul_probe(device, "bfloat16", sizes.matmul),
        "copy": copy_probe(device, sizes.copied_bytes),
        "exponentials": Probe(
            call=lambda: exponentials(x_N, sizes.rounds),
            amount=sizes.exponentials * sizes.rounds,
        ),
    }
    calls = {name: probe.call for name, probe in probes.items()}
    samples = alternate(calls, watch, seconds=seconds)
    a_second = {
        name: probes[name].amount * 1e3 / statistics.median(taken)
        for name, taken in samples.items()
    }
    found = Ceilings(
        matmul_flops=a_second["matmul"],
        copy_bytes=a_second["copy"],
        exponentials=a_second["exponentials"],
    )
    record: dict[str, object] = {f"{name}_ms": spread(taken) for name, taken in samples.items()}
    return found, {
        **record,
        "matmul_tflops": found.matmul_flops / 1e12,
        "copy_tbytes": found.copy_bytes / 1e12,
        "exponentials_t": found.exponentials / 1e12,
    }
