"""The records of a sweep as points of a chart, and as one page that opens offline."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnscope.app.exports import offline_html
from attnscope.app.figures.sweep import SweepPoint, sweep
from attnscope.app.figures.theme import LIGHT
from attnscope.app.jobs.profile_records import described, provenance
from attnscope.profiling.units import count, latency, nbytes

if TYPE_CHECKING:
    from attnscope.profiling.record import RunRecord

_MEBI = 2**20


def write_report(
    records: "Sequence[RunRecord]",
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
    found = [described(record) for record in records]
    title = f"{records[0].model.title}: time by backend and length"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(report(found, header, rows, title=title, note=provenance(records)))


def report(
    found: Sequence[Mapping[str, Any]],
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    title: str,
    note: str,
) -> bytes:
    """The page.

    Args:
        found: Records as `profile_records.described` gives them.
        header: Names of the table's columns.
        rows: Its texts, one a record.
        title: Plain text.
        note: Where the numbers come from, plain text.
    """
    # A figure draws no narrow space.
    cells = [[cell.replace("\u202f", " ") for cell in row] for row in rows]
    figure = sweep(points_of(found), header, cells, title=title, note=note, look=LIGHT)
    return offline_html(figure, title=title, note=note)


def points_of(found: Sequence[Mapping[str, Any]]) -> list[SweepPoint]:
    """Records, as `profile_records.described` gives them, as points; a line names what differs between lines."""
    differ = [name for name in ("batch", "dtype") if len({each[name] for each in found}) > 1]
    return [_point(each, differ) for each in found]


def _point(each: Mapping[str, Any], differ: Sequence[str]) -> SweepPoint:
    named = {"batch": f"batch {each['batch']}", "dtype": each["dtype"]}
    taken, peak, predicted = each["seconds"], each["allocated_bytes"], each["predicted_bytes"]
    return SweepPoint(
        line=", ".join([each["backend"], *(named[name] for name in differ)]),
        backend=each["backend"],
        phase=each["phase"],
        length=each["length"],
        milliseconds=None if taken is None else (1e3 * taken[0], 1e3 * taken[1], 1e3 * taken[2]),
        words=f"{each['backend']}, {count(each['length'])} tokens: {_words(each)}",
        mebibytes=None if peak is None else peak / _MEBI,
        predicted_mebibytes=None if predicted is None else predicted / _MEBI,
    )


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
