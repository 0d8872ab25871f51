"""Energy over a stretch of time, from what a device's meter said while it was sampled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from attnscope.profiling.measured import Measured
from attnscope.profiling.sources import Sample

Curve = list[tuple[float, float]]
"""Seconds and a figure, in the order of time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """What was drawn.

    Attributes:
        joules: Over the stretch of time, by the whole device, whatever else it did.
        seconds: Its length.
        method: "counter" for the device's own total, "power" for its power summed over time; empty
            without a figure.
    """

    joules: Measured
    seconds: float
    method: str = ""


def energy(
    samples: Sequence[Sample], start_s: float, end_s: float, missing: Mapping[str, str]
) -> Energy:
    """Energy between two moments.

    The device's counter (Volta and newer) is exact between its own updates, and is read between
    samples along a straight line; power is summed by trapezoids.

    Args:
        samples: In order; those around the stretch are used as well.
        start_s: By `time.monotonic`.
        end_s: Likewise.
        missing: Why a figure is not available, by its name in `Sample`.
    """
    seconds = end_s - start_s
    counted = [(each.at_s, each.energy_j) for each in samples if each.energy_j is not None]
    if _covers(counted, start_s, end_s):
        joules = _at(counted, end_s) - _at(counted, start_s)
        return Energy(joules=Measured(joules), seconds=seconds, method="counter")
    powers = [(each.at_s, each.power_w) for each in samples if each.power_w is not None]
    if _covers(powers, start_s, end_s):
        inside = [point for point in powers if start_s < point[0] < end_s]
        ends = [(moment, _at(powers, moment)) for moment in (start_s, end_s)]
        curve = [ends[0], *inside, ends[1]]
        joules = sum((t1 - t0) * (p0 + p1) / 2 for (t0, p0), (t1, p1) in pairwise(curve))
        return Energy(joules=Measured(joules), seconds=seconds, method="power")
    reason = missing.get("power_w") or "the samples do not cover the run"
    return Energy(joules=Measured.missing(reason), seconds=seconds)


def _covers(curve: Curve, start_s: float, end_s: float) -> bool:
    return len(curve) > 1 and curve[0][0] <= start_s < end_s <= curve[-1][0]


def _at(curve: Curve, moment: float) -> float:
    """The figure at a moment between two points, along a straight line."""
    for (t0, v0), (t1, v1) in pairwise(curve):
        if t0 <= moment <= t1:
            return v0 + (v1 - v0) * (moment - t0) / (t1 - t0) if t1 > t0 else v1
    raise AssertionError("the curve covers the moment")
