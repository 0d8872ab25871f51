"""Measured runs as points of a chart and as text for a table: no page, no figure."""

from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd

from attnscope.app.figures.sweep import SweepPoint
from attnscope.profiling.comparison import Comparison, Figure
from attnscope.profiling.record import RunRecord
from attnscope.profiling.record_files import harmless
from attnscope.profiling.store_rows import RunRow
from attnscope.profiling.units import count, flop, latency, nbytes, share

Pairs = list[tuple[str, str]]

_APART = ("model_title", "device_name", "dtype", "batch")
_CELL = ("backend", "phase", "batch", "length", "dtype")


def points(rows: Sequence[RunRow]) -> tuple[list[SweepPoint], list[SweepPoint]]:
    """Latency in milliseconds and peak memory in MiB of every run, a line for each of what differs.

    Where several runs are of one cell, the newest is drawn.
    """
    apart = [name for name in _APART if len({getattr(row, name) for row in rows}) > 1]
    newest = {
        (_line(row, apart), row.phase, row.length): row
        for row in sorted(rows, key=lambda row: row.created)
    }
    latencies, memories = [], []
    for (line, phase, length), row in newest.items():
        taken, peak = _milliseconds(row), _scaled(row.peak_bytes, 2**-20)
        same = {"line": line, "backend": row.backend, "phase": phase, "length": length}
        latencies.append(SweepPoint(**same, value=taken, words=_at_point(row)))
        if peak is not None or not row.is_measured:
            held = None if peak is None else (peak, peak, peak)
            memories.append(SweepPoint(**same, value=held, words=_at_point(row)))
    return latencies, memories


def _line(row: RunRow, apart: Sequence[str]) -> str:
    said = {"batch": f"batch {row.batch}"}
    return ", ".join([row.backend, *(said.get(name, str(getattr(row, name))) for name in apart)])


def _milliseconds(row: RunRow) -> tuple[float, float, float] | None:
    if row.median_s is None or row.p10_s is None or row.p90_s is None:
        return None
    return 1e3 * row.median_s, 1e3 * row.p10_s, 1e3 * row.p90_s


def _at_point(row: RunRow) -> str:
    where = f"{row.backend}, {row.phase}, {row.batch} by {count(row.length)}"
    if row.median_s is None:
        said = f"{row.outcome.replace('_', ' ')}: {row.reason}"
    else:
        peak = "" if row.peak_bytes is None else f", peak {nbytes(row.peak_bytes)}"
        said = f"{latency(row.median_s)}{peak}"
    return f"{where}: {said}".replace("\u202f", " ")


def listed(rows: Sequence[RunRow], reference: frozenset[str]) -> pd.DataFrame:
    """The rows as the page's table shows them: numbers stay numbers, so that they sort."""
    return pd.DataFrame(
        {
            "when": pd.to_datetime([row.created for row in rows], utc=True),
            "model": [harmless(row.model_title) for row in rows],
            "backend": [harmless(row.backend) for row in rows],
            "phase": [row.phase for row in rows],
            "batch": [row.batch for row in rows],
            "tokens": [row.length for row in rows],
            "dtype": [harmless(row.dtype) for row in rows],
            "median": [_scaled(row.median_s, 1e3) for row in rows],
            "p10 - p90": [_spread(row) for row in rows],
            "tokens/s": [row.tokens_per_s for row in rows],
            "peak": [_scaled(row.peak_bytes, 2**-20) for row in rows],
            "kernel that ran": [harmless(row.kernel) for row in rows],
            "to know": [harmless(to_know(row)) for row in rows],
            "device": [harmless(row.device_name) for row in rows],
            "of": [_whose(row, reference) for row in rows],
        }
    )


def to_know(row: RunRow) -> str:
    """Why there is no figure, or what a reader of the figures must know."""
    if row.is_measured:
        return row.flags
    return f"{row.outcome.replace('_', ' ')}: {row.reason}"


def _whose(row: RunRow, reference: frozenset[str]) -> object:
    if row.id in reference:
        return "reference"
    return harmless(row.imported_from) if row.imported_from else "own"


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _spread(row: RunRow) -> str:
    taken = _milliseconds(row)
    return "" if taken is None else f"{taken[1]:.3g} - {taken[2]:.3g}"


def frame(rows: Sequence[RunRow]) -> pd.DataFrame:
    """Every column of the rows, for the files of a chart."""
    return pd.DataFrame([asdict(row) for row in rows])


def headline(record: RunRecord) -> str:
    """What was measured, in one line."""
    cell = record.cell
    return (
        f"{record.model.title} · {cell.backend} · {cell.phase} · "
        f"{count(cell.batch)} by {count(cell.length)} tokens · {cell.dtype}"
    )


def figures_of(record: RunRecord) -> Pairs:
    """What was found, as names and texts."""
    timing, peak, ran, exact = record.timing, record.peak, record.attention, record.exactness
    found: Pairs = []
    if timing is not None:
        found += [
            ("median", latency(timing.median_s)),
            ("p10 - p90", f"{latency(timing.p10_s)} - {latency(timing.p90_s)}"),
            ("runs", f"{timing.count}, after {timing.warmup_runs} to warm up"),
            ("tokens/s", count(round(record.tokens_per_s or 0))),
        ]
    if peak is not None:
        allocated, transient = peak.allocated, peak.transient
        found.append(("peak memory", _size(allocated.value, allocated.reason)))
        found.append(("of it by the run", _size(transient.value, transient.reason)))
    if ran is not None:
        found.append(("attention that ran", ran.paths))
    if exact is not None and exact.relative.value is not None:
        found.append(("relative error", f"{exact.relative.value:.1e}"))
    if record.energy is not None and record.energy.joules.value is not None:
        found.append(("energy", f"{record.energy.joules.value:.3g} J"))
    return found


def _size(value: float | None, reason: str) -> str:
    return reason if value is None else nbytes(value)


def provenance(record: RunRecord) -> Pairs:
    """Everything that repeats the measurement, as names and texts."""
    model, machine, timing = record.model, record.machine, record.timing
    found = [
        ("run", record.id),
        ("measured", record.created),
        ("model", f"{model.source} ({model.architecture})"),
        ("revision", model.revision or ""),
        ("config", model.config_hash),
        ("parameters", f"{count(model.parameters)}, {nbytes(model.weight_bytes)}"),
        ("device", f"{machine.device}, {machine.name}, {nbytes(machine.memory_bytes)}"),
        ("threads", str(machine.threads)),
        ("driver", machine.driver),
        *machine.versions,
        *record.parameters,
        ("seed", str(record.seed)),
        ("load before", f"{record.telemetry.load_before:.2g} processes"),
        ("predicted peak", nbytes(record.predicted_bytes) if record.predicted_bytes else ""),
    ]
    if record.prediction is not None:
        told = record.prediction
        ceilings = f"{flop(told.flops_per_second)}/s, {told.bytes_per_second / 1e9:.3g} GB/s"
        found.append(("predicted least time", latency(told.seconds)))
        found.append(("work", f"{flop(told.flops)}, {nbytes(told.nbytes)} moved"))
        found.append((f"ceilings, {told.origin}", ceilings))
    if timing is not None:
        found += [("clock", timing.clock), ("cache", timing.cache)]
    return [(name, value) for name, value in found if value]


def kernels_of(record: RunRecord, most: int = 10) -> list[tuple[str, str, str, str]]:
    """The kernels of most time: name, time, calls, share."""
    return [
        (each.name, latency(each.seconds), count(each.count), share(each.share))
        for each in record.kernels[:most]
    ]


def labels(found: Comparison) -> list[str]:
    """A short name for each run compared: what differs in its cell, and the first digits of its id."""
    apart = [each.values for each in found.differences if each.name in _CELL]
    return [
        " ".join([*(values[at] for values in apart), run[:6]]) for at, run in enumerate(found.runs)
    ]


def compared(found: Comparison) -> tuple[list[str], list[list[str]]]:
    """The figures of a comparison as text, a row a run, with the ratios to the first run.

    Returns:
        The header, and the rows.
    """
    known = [figure for figure in found.figures if any(figure.values)]
    rows = [
        [label, *(_figure_text(figure, at) for figure in known)]
        for at, label in enumerate(labels(found))
    ]
    return ["run", *(figure.name for figure in known)], rows


def _figure_text(figure: Figure, at: int) -> str:
    value, ratio, unit = figure.values[at], figure.ratios[at], figure.unit
    if value is None:
        return "-"
    texts = {"s": latency, "B": nbytes, "tokens/s": lambda number: count(round(number))}
    text = texts[unit](value) if unit in texts else f"{value:.3g} {unit}".strip()
    # The first run is what the others are held against: its own ratio says nothing.
    return text if ratio is None or at == 0 else f"{text} ({ratio:.2f}x)"
