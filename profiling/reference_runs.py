"""Runs that ship with the project, to hold one's own against: `assets/reference_runs/**/*.jsonl`."""

import functools
from pathlib import Path

from attnscope.profiling.record import RunRecord
from attnscope.profiling.record_files import from_lines

FOLDER = Path(__file__).resolve().parents[1] / "assets" / "reference_runs"


@functools.cache
def reference_runs() -> tuple[RunRecord, ...]:
    """All of them, in the order of the files' names.

    Raises:
        RecordUnreadable: A file was changed; says which line.
    """
    return tuple(
        record
        for path in sorted(FOLDER.rglob("*.jsonl"))
        for record in from_lines(path.read_bytes(), str(path.relative_to(FOLDER)))
    )
