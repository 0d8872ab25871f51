"""What a device can do at most, measured on it: the rate of a large matrix product, and of a large copy.

Data sheets tell what no program reaches; a share of these is a share of what one did reach, on this
machine, with this build of PyTorch. They are kept in a folder, by the device and what it runs with.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from attnscope.profiling.json_data import from_data, to_data
from attnscope.profiling.latency import Clock, Effort, Timing, cache_bytes, clock_of, time_calls
from attnscope.profiling.machine import machine_of
from attnscope.profiling.probes import copy_probe, matmul_probe
from attnscope.profiling.record import Machine, now

DTYPES = ("float32", "bfloat16", "float16")
EFFORT = Effort(runs=10, seconds=0.3, warmup_runs=2, warmup_seconds=0.1, budget_s=8.0)
"""A few seconds for all probes together."""

_COPY = "copy"
_LEAST_SIDE = 256
_MOST_SIDE = {"cpu": 1024}
_ANY_MOST_SIDE = 8192
_LONGEST_PRODUCT_S = 0.1
_LEAST_COPY, _MOST_COPY = 64 * 2**20, 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How much a second.

    Attributes:
        of: The dtype of the product, or "copy".
        per_second: At the median of the runs; FLOP, or bytes read and written.
        p10: At the 90th percentile of their times.
        p90: At the 10th.
        runs: How many.
        amount: Of one run.
    """

    of: str
    per_second: float
    p10: float
    p90: float
    runs: int
    amount: int

    @property
    def spread(self) -> float:
        """From the 10th to the 90th percentile, over the median."""
        return (self.p90 - self.p10) / self.per_second


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """The rates of one device.

    Attributes:
        measured: When, UTC, ISO 8601.
        machine: On what, and with what.
        products: FLOP a second, by dtype.
        copy: Bytes read and written a second.
    """

    measured: str
    machine: Machine
    products: tuple[Rate, ...]
    copy: Rate

    def product(self, dtype: str) -> Rate | None:
        """The rate of a dtype; None where it was not measured."""
        return next((rate for rate in self.products if rate.of == dtype), None)


def measure_ceilings(
    device: torch.device,
    *,
    dtypes: Sequence[str] = DTYPES,
    clock: Clock | None = None,
    effort: Effort = EFFORT,
    check: Callable[[], None] = lambda: None,
) -> Ceilings:
    """Measures the rates in turns: the product of each dtype, and the copy.

    Args:
        device: Of which.
        dtypes: Of the products.
        clock: How time is taken; the device's own when None.
        effort: How much.
        check: Called between two runs; what it raises ends the measurement.
    """
    clock = clock or clock_of(device)
    probes = {
        dtype: matmul_probe(device, dtype, _side(device, dtype, clock, check)) for dtype in dtypes
    }
    probes[_COPY] = copy_probe(device, _copied(device))
    calls = {name: probe.call for name, probe in probes.items()}
    times = time_calls(calls, clock, effort, on_run=lambda name, taken: check())
    rates = {name: _rate(name, probes[name].amount, timing) for name, timing in times.items()}
    return Ceilings(
        measured=now(),
        machine=machine_of(device),
        products=tuple(rates[dtype] for dtype in dtypes),
        copy=rates[_COPY],
    )


def keep_ceilings(found: Ceilings, folder: Path) -> None:
    """Writes them in place of what was measured before of the same device with the same versions."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{_key(found.machine)}.json"
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(to_data(found)), encoding="utf-8")
    beside.replace(path)


def kept_ceilings(device: torch.device, folder: Path) -> Ceilings | None:
    """What was measured of a device with what it runs with now; None where nothing was, or it is damaged."""
    path = folder / f"{_key(machine_of(device))}.json"
    if not path.is_file():
        return None
    try:
        return from_data(Ceilings, json.loads(path.read_text(encoding="utf-8")))
    except ValueError:
        return None


def _key(machine: Machine) -> str:
    versions = dict(machine.versions)
    # "cuda" and "cuda:0" are one device, and two of one name are alike.
    kind = machine.device.partition(":")[0]
    asked = (kind, machine.name, machine.threads, machine.driver)
    text = json.dumps([*asked, versions["torch"], versions["cuda"]])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _side(device: torch.device, dtype: str, clock: Clock, check: Callable[[], None]) -> int:
    """The largest side whose product is quick: CPUs take seconds for what they have no units for."""
    side, most = _LEAST_SIDE, _MOST_SIDE.get(device.type, _ANY_MOST_SIDE)
    one = Effort(runs=1, seconds=0.0, warmup_runs=1, warmup_seconds=0.0)
    while side < most:
        check()
        probe = matmul_probe(device, dtype, side)
        taken = time_calls({"": probe.call}, clock, one)[""].median_s
        if 8 * taken > _LONGEST_PRODUCT_S:
            break
        side *= 2
    return side


def _copied(device: torch.device) -> int:
    """Bytes of a copy that no cache holds."""
    return min(max(4 * (cache_bytes(device) or 0), _LEAST_COPY), _MOST_COPY)


def _rate(name: str, amount: int, timing: Timing) -> Rate:
    return Rate(
        of=name,
        per_second=amount / timing.median_s,
        p10=amount / timing.p90_s,
        p90=amount / timing.p10_s,
        runs=timing.count,
        amount=amount,
    )
