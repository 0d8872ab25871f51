"""The records of a profile as points of charts: a reading, its words, what was predicted."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attnscope.app.figures.sweep import Reading, SweepPoint
from attnscope.profiling.units import count, latency, nbytes

_MEBI = 2**20


def points_of(found: Sequence[Mapping[str, Any]], reading: Reading) -> list[SweepPoint]:
    """Records as points; a line names what differs between lines.

    Args:
        found: As `profile_records.described` gives them.
        reading: What is drawn; a cell that was measured without it is left out.
    """
    differ = [name for name in ("batch", "dtype") if len({each[name] for each in found}) > 1]
    points = [(each, _point(each, reading, differ)) for each in found]
    return [point for each, point in points if point.value or each["failure"] is not None]


def _point(each: Mapping[str, Any], reading: Reading, differ: Sequence[str]) -> SweepPoint:
    named = {"batch": f"batch {each['batch']}", "dtype": each["dtype"]}
    predicted = each["predicted_bytes"] if reading == "memory" else None
    return SweepPoint(
        line=", ".join([each["backend"], *(named[name] for name in differ)]),
        backend=each["backend"],
        phase=each["phase"],
        length=each["length"],
        value=_VALUES[reading](each),
        words=f"{each['backend']}, {count(each['length'])} tokens: {_words(each)}",
        predicted=None if predicted is None else predicted / _MEBI,
    )


Value = tuple[float, float, float] | None


def _latency(each: Mapping[str, Any]) -> Value:
    taken = each["seconds"]
    return None if taken is None else (1e3 * taken[0], 1e3 * taken[1], 1e3 * taken[2])


def _throughput(each: Mapping[str, Any]) -> Value:
    """At the median of the times, and at their ends: the fastest run computes the most."""
    taken, rate = each["seconds"], each["tokens_per_s"]
    if taken is None:
        return None
    median, low, high = taken
    return rate, rate * median / high, rate * median / low


def _alone(name: str, unit: float = 1.0) -> Callable[[Mapping[str, Any]], Value]:
    """A figure that has no ends but itself."""

    def value(each: Mapping[str, Any]) -> Value:
        found = each[name]
        return None if found is None else (found / unit,) * 3

    return value


_VALUES: dict[Reading, Callable[[Mapping[str, Any]], Value]] = {
    "latency": _latency,
    "memory": _alone("allocated_bytes", _MEBI),
    "throughput": _throughput,
    "power": _alone("watts"),
    "energy": _alone("joules_per_token"),
}


def _words(each: Mapping[str, Any]) -> str:
    failure = each["failure"]
    if failure is not None:
        return f"{failure['outcome'].replace('_', ' ')}: {failure['reason']}"
    facts = [latency(each["seconds"][0])]
    if each["allocated_bytes"] is not None:
        facts.append(f"{nbytes(each['allocated_bytes'])} at its peak")
    if each["kernel"]:
        facts.append(f"{each['kernel']} ran")
    return "; ".join([", ".join(facts), *each["flags"]]).replace("\u202f", " ")
