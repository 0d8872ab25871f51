"""The records of a sweep as one page that opens offline: time over length, and every cell in a table."""

from collections.abc import Sequence
from pathlib import Path

from attnscope.app.exports import offline_html
from attnscope.app.figures.sweep import SweepPoint, sweep
from attnscope.app.figures.theme import LIGHT
from attnscope.profiling.record import RunRecord


def write_report(
    records: Sequence[RunRecord],
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    path: Path,
) -> None:
    """Writes the page.

    Args:
        records: At least one, of one model on one machine.
        header: Names of the table's columns.
        rows: Its texts, one a record.
        path: Where.
    """
    title = f"{records[0].model.title}: time by backend and length"
    note = provenance(records)
    points = [_point(record) for record in records]
    # A figure draws no narrow space.
    cells = [[cell.replace("\u202f", " ") for cell in row] for row in rows]
    figure = sweep(points, header, cells, title=title, note=note, look=LIGHT)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(offline_html(figure, title=title, note=note))


def provenance(records: Sequence[RunRecord]) -> str:
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


def _point(record: RunRecord) -> SweepPoint:
    cell, timing = record.cell, record.timing
    words = "; ".join(record.flags)
    if record.failure is not None:
        words = f"{record.failure.outcome.replace('_', ' ')}: {record.failure.reason}"
    elif record.attention is not None:
        words = "; ".join([f"{record.attention.paths} ran", *record.flags])
    taken = None if timing is None else (timing.median_s, timing.p10_s, timing.p90_s)
    return SweepPoint(
        line=f"{cell.backend}, batch {cell.batch}, {cell.dtype}",
        backend=cell.backend,
        phase=cell.phase,
        length=cell.length,
        values=None if taken is None else (1e3 * taken[0], 1e3 * taken[1], 1e3 * taken[2]),
        words=f"{cell.backend}, {cell.length} tokens: {words}",
    )
