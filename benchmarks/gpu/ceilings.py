"""What the device can do at most, measured in the run whose figures are held against it."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch

from attnscope.kernels.triton.exponentials import exponentials
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
    side = sizes.matmul
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    product = torch.empty_like(a)
    source = torch.randn(sizes.copied_bytes // 4, device=device)
    copied = torch.empty_like(source)
    x_N = torch.rand(sizes.exponentials, device=device)
    calls: dict[str, Callable[[], object]] = {
        "matmul": lambda: torch.mm(a, b, out=product),
        "copy": lambda: copied.copy_(source),
        "exponentials": lambda: exponentials(x_N, sizes.rounds),
    }
    samples = alternate(calls, watch, seconds=seconds)
    a_second = {name: 1e3 / statistics.median(taken) for name, taken in samples.items()}
    found = Ceilings(
        matmul_flops=2 * side**3 * a_second["matmul"],
        copy_bytes=2 * sizes.copied_bytes * a_second["copy"],
        exponentials=sizes.exponentials * sizes.rounds * a_second["exponentials"],
    )
    record: dict[str, object] = {f"{name}_ms": spread(taken) for name, taken in samples.items()}
    return found, {
        **record,
        "matmul_tflops": found.matmul_flops / 1e12,
        "copy_tbytes": found.copy_bytes / 1e12,
        "exponentials_t": found.exponentials / 1e12,
    }
