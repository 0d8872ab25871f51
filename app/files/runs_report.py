"""Measured runs as one page that opens offline: over their lengths, side by side, and what repeats each."""

from collections.abc import Sequence

from attnscope.app.figures.runs import over_length
from attnscope.app.figures.theme import LIGHT
from attnscope.app.files.offline import Section, offline_report
from attnscope.app.words import runs as words
from attnscope.profiling.comparison import compare
from attnscope.profiling.record import RunRecord
from attnscope.profiling.store_rows import RunRow
from attnscope.profiling.units import count, latency, nbytes

HEADER = (
    *("run", "measured", "model", "revision", "config"),
    *("backend", "phase", "batch", "tokens", "dtype"),
    *("median", "p10 - p90", "tokens/s", "peak memory", "kernel that ran", "to know"),
    *("device", "attnscope", "from"),
)
"""Of the table of all runs."""


def runs_report(rows: Sequence[RunRow], records: Sequence[RunRecord]) -> bytes:
    """Write the page.

    Args:
        rows: All runs in it, at least one.
        records: Those of them that are told whole.

    Raises:
        InvalidCall: It would be too large.
    """
    sections = [_chart(rows), Section(heading="Every run", header=HEADER, rows=_table(rows))]
    if len(records) > 1:
        sections.append(_side_by_side(records))
    sections += [
        Section(
            heading=words.headline(record),
            rows=[*words.figures_of(record), *words.provenance(record)],
        )
        for record in records
    ]
    return offline_report(sections, title=f"{count(len(rows))} measured runs", note=_note(rows))


def _chart(rows: Sequence[RunRow]) -> Section:
    latencies, memories = words.points(rows)
    figure = over_length(latencies, memories, title="", note="", look=LIGHT)
    said = "; ".join(point.words for point in latencies)
    return Section(heading="Time and peak memory over length", figure=figure, words=said)


def _side_by_side(records: Sequence[RunRecord]) -> Section:
    found = compare(records)
    header, rows = words.compared(found)
    cautions = " ".join(found.cautions)
    return Section(
        heading="Side by side; ratios are to the first", words=cautions, header=header, rows=rows
    )


def _table(rows: Sequence[RunRow]) -> list[tuple[str, ...]]:
    return [
        (
            *(row.id, row.created[:19].replace("T", " "), row.model_title),
            *(row.model_revision or "", row.config_hash[:12]),
            *(row.backend, row.phase, count(row.batch), count(row.length), row.dtype),
            "-" if row.median_s is None else latency(row.median_s),
            _spread(row),
            "-" if row.tokens_per_s is None else count(round(row.tokens_per_s)),
            "-" if row.peak_bytes is None else nbytes(row.peak_bytes),
            *(row.kernel, words.to_know(row)),
            *(row.device_name, row.version, row.imported_from),
        )
        for row in rows
    ]


def _spread(row: RunRow) -> str:
    if row.p10_s is None or row.p90_s is None:
        return "-"
    return f"{latency(row.p10_s)} - {latency(row.p90_s)}"


def _note(rows: Sequence[RunRow]) -> str:
    times = sorted(row.created[:19].replace("T", " ") for row in rows)
    devices = ", ".join(dict.fromkeys(row.device_name for row in rows))
    models = ", ".join(dict.fromkeys(row.model_source for row in rows))
    return (
        f"{count(len(rows))} runs of {models} on {devices}, measured {times[0]} to {times[-1]} UTC. Each is named by "
        "its content, and can be had whole as JSON Lines or Parquet from the page Runs."
    )
