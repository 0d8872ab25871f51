"""Records as the page draws them: what a chart, a row or a bar needs, and no sample."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from attnscope.app.commands.profile import rows_of

if TYPE_CHECKING:
    from attnscope.profiling.record import RunRecord

Described = dict[str, Any]

_MOST_KERNELS = 12


def described(record: "RunRecord") -> Described:
    """One record in short.

    Returns:
        id, the fields of its cell, `row` (its texts under `commands.profile.HEADER`), `seconds` (median, 10th and 90th
        percentile) with `runs`, `allocated_bytes`, `predicted_bytes`, `prediction` (of the time: `seconds`, `flops`,
        `nbytes` and the ceilings), `cache_bytes`, `tokens_per_s`, `watts` and `joules_per_token`, `kernel` (the path
        that ran), `fallback`, `flags`, and `failure`; None where there is none.
    """
    cell, timing, peak, ran = record.cell, record.timing, record.peak, record.attention
    failure = record.failure
    return {
        "id": record.id,
        "backend": cell.backend,
        "phase": cell.phase,
        "batch": cell.batch,
        "length": cell.length,
        "dtype": cell.dtype,
        "row": rows_of([record])[0],
        "seconds": None if timing is None else [timing.median_s, timing.p10_s, timing.p90_s],
        "runs": 0 if timing is None else timing.count,
        "tokens_per_s": record.tokens_per_s,
        "allocated_bytes": None if peak is None else peak.allocated.value,
        "predicted_bytes": record.predicted_bytes,
        "prediction": _foretold(record),
        "cache_bytes": cache_bytes(record),
        "watts": watts(record),
        "joules_per_token": joules_per_token(record),
        "kernel": "" if ran is None else ran.paths,
        "fallback": "" if ran is None else ran.fallback,
        "flags": list(record.flags),
        "failure": None
        if failure is None
        else {"outcome": failure.outcome, "reason": failure.reason, "remedy": failure.remedy},
    }


def cache_bytes(record: "RunRecord") -> int | None:
    """What the cache held after the run; None where memory was not told apart."""
    timeline = record.timeline
    if timeline is None or not timeline.nbytes:
        return None
    return timeline.nbytes[-1][timeline.kinds.index("kv_cache")]


def watts(record: "RunRecord") -> float | None:
    """Mean power of the whole device while latency was timed; None where no meter told."""
    drawn = record.energy
    return (
        None if drawn is None or drawn.joules.value is None else drawn.joules.value / drawn.seconds
    )


def joules_per_token(record: "RunRecord") -> float | None:
    """At that power, what the tokens of one median run take, divided among them."""
    power, rate = watts(record), record.tokens_per_s
    return None if power is None or rate is None else power / rate


def _foretold(record: "RunRecord") -> Described | None:
    from attnscope.profiling.json_data import to_data

    told = record.prediction
    return None if told is None else {**to_data(told), "seconds": told.seconds}


def detailed(record: "RunRecord") -> Described:
    """What one record says of its model's parts, its kernels and its memory over time.

    Returns:
        `parts` (kind, layer, name, seconds), `overhead` (of timing them, as a ratio), `kernels` (name, share, count),
        `timeline` (kinds, seconds, a row of bytes a moment), each None or empty where it was not measured, and
        `notes`, which say why.
    """
    parts, timeline = record.parts, record.timeline
    return {
        "parts": []
        if parts is None
        else [
            {"kind": each.kind, "layer": each.layer, "name": each.name, "seconds": each.median_s}
            for each in parts.parts
        ],
        "overhead": None if parts is None else parts.overhead.value,
        "kernels": [
            {"name": each.name, "share": each.share, "count": each.count}
            for each in record.kernels[:_MOST_KERNELS]
        ],
        "timeline": None
        if timeline is None
        else {
            "kinds": list(timeline.kinds),
            "seconds": list(timeline.seconds),
            "nbytes": [list(row) for row in timeline.nbytes],
        },
        "notes": list(record.notes),
    }


def missing(records: "Sequence[RunRecord]") -> dict[str, list[str]]:
    """What no meter told, by the reason: a reason, and the figures it holds for."""
    found: dict[str, list[str]] = {}
    for record in records:
        for name, reason in record.telemetry.missing:
            names = found.setdefault(reason, [])
            if name not in names:
                names.append(name)
    return found


def provenance(records: "Sequence[RunRecord]") -> str:
    """Where the numbers come from, in one line."""
    first = records[0]
    times = sorted(record.created for record in records)
    facts = [
        f"model {first.model.source}",
        f"revision {first.model.revision}" if first.model.revision else "",
        f"config {first.model.config_hash[:12]}",
        f"device {first.machine.device} ({first.machine.name})",
        *(f"{name} {version}" for name, version in first.machine.versions),
        f"measured {times[0]} to {times[-1]}",
        f"records {', '.join(record.id for record in records[:4])}" + " …" * (len(records) > 4),
    ]
    return " · ".join(filter(None, facts))
