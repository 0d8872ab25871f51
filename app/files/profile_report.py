"""All of a profile as one page that opens offline: charts, tables, one cell taken apart, where it comes from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnscope.app.commands.profile import HEADER
from attnscope.app.figures.theme import LIGHT
from attnscope.app.files.offline import Section, offline_report
from attnscope.app.files.profile import figure_of
from attnscope.app.jobs.profile_records import described, provenance
from attnscope.app.words.profile import (
    OF_ALL,
    OF_ONE,
    PREDICTED,
    PREDICTED_NOTE,
    TITLES,
    predicted,
    words_of,
)

if TYPE_CHECKING:
    from attnscope.profiling.record import RunRecord

Found = Mapping[str, Any]


def write_report(records: "Sequence[RunRecord]", path: Path) -> None:
    """Write the page of records that no profile holds.

    Args:
        records: At least one, of one model on one machine.
        path: Where.
    """
    found = {
        "records": [described(record) for record in records],
        "model": {"title": records[0].model.title},
        "provenance": provenance(records),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(report_of(found))


def report_of(found: Found, detail: Found | None = None, cell: str = "") -> bytes:
    """Write the page.

    Args:
        found: The answer to `profile`, or its `records`, `model` and `provenance`.
        detail: The answer to `profile_detail` for the cell that is taken apart; None for none.
        cell: Which that is, in words.

    Raises:
        InvalidCall: It would be too large.
    """
    sections = [*_charts(found, OF_ALL, {}), *_tables(found)]
    if detail is not None:
        sections += [
            Section(heading=f"{each.heading}, {cell}", figure=each.figure, words=each.words)
            for each in _charts(found, OF_ONE, detail)
        ]
    title = f"{found['model']['title']}: what it costs by backend and length"
    return offline_report(sections, title=title, note=found["provenance"])


def _charts(found: Found, charts: Sequence[str], detail: Found) -> list[Section]:
    drawn = ((what, figure_of(what, found, detail, look=LIGHT)) for what in charts)
    return [
        Section(heading=TITLES[what], figure=figure, words=words_of(what, found, detail))
        for what, figure in drawn
        if figure is not None
    ]


def _tables(found: Found) -> list[Section]:
    cells = [[*each["row"], each["id"]] for each in found["records"]]
    tables = [Section(heading="Every cell", header=[*HEADER, "run"], rows=cells)]
    rows = predicted(found["records"])
    if rows:
        heading = "Predicted beside measured"
        tables.append(Section(heading=heading, words=PREDICTED_NOTE, header=PREDICTED, rows=rows))
    return tables
