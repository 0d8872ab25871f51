"""Records as files and back, byte for byte: JSON Lines and Parquet; and their rows as CSV.

Files come from strangers: every line is read as a record that must name its own content, within limits
stated here, or the whole file is refused with the line and the reason.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from attnscope.kernels.errors import RecordUnreadable
from attnscope.profiling.record import RunRecord
from attnscope.profiling.store_rows import KINDS, RunRow, row_of
from attnscope.profiling.units import count, nbytes

LARGEST_FILE = 32 * 2**20
"""Of an import, bytes."""

MOST_RECORDS = 20_000
_LARGEST_UNPACKED = 8 * LARGEST_FILE
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def to_lines(records: Iterable[RunRecord]) -> bytes:
    """JSON Lines: a record a line, UTF-8."""
    return "".join(f"{record.to_json()}\n" for record in records).encode()


def from_lines(content: bytes, name: str) -> tuple[RunRecord, ...]:
    """The records of a JSON Lines file.

    Args:
        content: The file.
        name: What it is called, for the refusal.

    Raises:
        RecordUnreadable: It is too large, empty, or a line is no record; says which and why.
    """
    _refuse_large(len(content), LARGEST_FILE, name)
    lines = [line for line in content.split(b"\n") if line.strip()]
    _refuse_many(len(lines), name)
    if not lines:
        raise RecordUnreadable(f"{name} holds no record.", _SOURCE)
    return tuple(_record(line, f"Line {at} of {name}") for at, line in enumerate(lines, start=1))


def to_parquet(records: Sequence[RunRecord]) -> bytes:
    """Parquet: the columns of `RunRow`, and the record whole as JSON in `record`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    named = [(name, types[kind]) for name, kind in KINDS.items()]
    rows = [{**asdict(row_of(record)), "record": record.to_json()} for record in records]
    table = pa.Table.from_pylist(rows, schema=pa.schema([*named, ("record", pa.string())]))
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd")
    return file.getvalue()


def from_parquet(content: bytes, name: str) -> tuple[RunRecord, ...]:
    """The records of a Parquet file that `to_parquet` wrote.

    Raises:
        RecordUnreadable: It is too large, no Parquet, or holds what is no record.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    _refuse_large(len(content), LARGEST_FILE, name)
    lines: list[str] = []
    unpacked = 0
    try:
        file = pq.ParquetFile(io.BytesIO(content))
        # One at a time: a text that is named a million times takes the file a few bytes.
        for batch in file.iter_batches(batch_size=1, columns=["record"]):
            lines += map(str, batch.column("record").to_pylist())
            unpacked += len(lines[-1])
            _refuse_large(unpacked, _LARGEST_UNPACKED, f"{name}, unpacked,")
            _refuse_many(len(lines), name)
    except RecordUnreadable:
        raise
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise RecordUnreadable(
            f"{name} is no Parquet file of records: {error}.", _SOURCE
        ) from error
    return tuple(
        _record(line.encode(), f"Row {at} of {name}") for at, line in enumerate(lines, start=1)
    )


def to_csv(rows: Iterable[RunRow]) -> bytes:
    """CSV of the rows, UTF-8, every text `harmless`."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(KINDS)
    writer.writerows([harmless(value) for value in asdict(row).values()] for row in rows)
    return file.getvalue().encode()


_SOURCE = "Export one from the Runs page, or write one with attnscope profile --out."


def _record(line: bytes, where: str) -> RunRecord:
    try:
        record = RunRecord.from_json(line.decode())
        row_of(record)
    # A hostile line may break what a dataclass asserts of itself, or nest without end.
    except (ValueError, AssertionError, RecursionError) as error:
        said = str(error) if isinstance(error, RecordUnreadable) else "This is no record."
        raise RecordUnreadable(f"{where}: {said}", "Nothing was imported.") from error
    return record


def _refuse_large(size: int, limit: int, name: str) -> None:
    if size > limit:
        raise RecordUnreadable(
            f"{name} has {nbytes(size)}; an import takes {nbytes(limit)}.", "Split it."
        )


def _refuse_many(records: int, name: str) -> None:
    if records > MOST_RECORDS:
        raise RecordUnreadable(
            f"{name} has more than {count(MOST_RECORDS)} records, which is what an import takes.",
            "Split it.",
        )


def harmless(value: object) -> object:
    """A cell of a table; a text that a spreadsheet would take for a formula gets a ' before it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
