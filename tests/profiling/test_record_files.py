"""Records as files: byte for byte there and back, and nothing hostile gets in."""

import csv
import io
import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attnscope.kernels.errors import RecordUnreadable
from attnscope.profiling import record_files
from attnscope.profiling.record_files import (
    LARGEST_FILE,
    from_lines,
    from_parquet,
    to_csv,
    to_lines,
    to_parquet,
)
from attnscope.profiling.store_rows import row_of
from tests.profiling.records import FAILED, RECORD, TIMING

RECORDS = (RECORD, FAILED)


def test_lines_come_back_byte_for_byte():
    written = to_lines(RECORDS)
    assert from_lines(written, "runs.jsonl") == RECORDS
    assert to_lines(from_lines(written, "runs.jsonl")) == written
    assert from_lines(written.replace(b"\n", b"\r\n"), "runs.jsonl") == RECORDS


def test_parquet_comes_back_byte_for_byte_and_has_columns_of_numbers():
    written = to_parquet(RECORDS)
    read = from_parquet(written, "runs.parquet")
    assert to_lines(read) == to_lines(RECORDS)
    table = pq.read_table(io.BytesIO(written))
    assert table.column("median_s").to_pylist() == [TIMING.median_s, None]
    assert table.schema.field("length").type == pa.int64()


def line(**changed: object) -> bytes:
    return json.dumps({**json.loads(RECORD.to_json()), **changed}).encode()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"", "no record", id="empty"),
        pytest.param(b"\n\n", "no record", id="blank"),
        pytest.param(b"{}\n", "Line 1 of runs.jsonl", id="no record"),
        pytest.param(RECORD.to_json().encode() + b"\n{\n", "Line 2", id="second line"),
        pytest.param(b"\xff\xfe", "Line 1", id="no UTF-8"),
        pytest.param(b"[" * 100_000, "Line 1", id="nested without end"),
        pytest.param(b"9" * 10_000, "Line 1", id="a huge number"),
        pytest.param(line(seed=99), "was changed", id="changed"),
        pytest.param(line(schema=2), "schema 2", id="another schema"),
        pytest.param(line(extra=1), "extra", id="unknown field"),
        pytest.param(b"<script>alert(1)</script>", "Line 1", id="markup"),
        pytest.param(
            line(
                peak={
                    **json.loads(RECORD.to_json())["peak"],
                    "allocated": {"value": None, "reason": ""},
                }
            ),
            "Line 1",
            id="neither value nor reason",
        ),
        pytest.param(
            replace(RECORD, timing=replace(TIMING, samples_s=(-1.0,) * 20)).to_json().encode(),
            "median_s is -1",
            id="time that ran backwards",
        ),
    ],
)
def test_what_is_no_record_is_refused_with_its_line(content: bytes, said: str):
    with pytest.raises(RecordUnreadable, match=said):
        from_lines(content, "runs.jsonl")


def test_not_a_number_is_refused():
    # Python reads NaN in JSON, and a stranger can calculate an id for it.
    hostile = replace(RECORD, timing=replace(TIMING, first_s=float("nan")))
    data = {**json.loads(RECORD.to_json()), "id": hostile.id}
    data["timing"]["first_s"] = float("nan")
    with pytest.raises(RecordUnreadable, match="Line 1"):
        from_lines(json.dumps(data).encode(), "runs.jsonl")


def test_a_file_over_the_limit_is_refused_unread():
    with pytest.raises(RecordUnreadable, match="an import takes"):
        from_lines(b" " * (LARGEST_FILE + 1), "runs.jsonl")


def test_too_many_lines_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(record_files, "MOST_RECORDS", 1)
    with pytest.raises(RecordUnreadable, match="more than 1 records"):
        from_lines(to_lines(RECORDS), "runs.jsonl")


def _parquet(**columns: list[str]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, compression="zstd")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"PAR1", "no Parquet", id="no Parquet"),
        pytest.param(_parquet(other=["x"]), "no Parquet file of records", id="other columns"),
        pytest.param(_parquet(record=["{}"]), "Row 1 of runs", id="no record"),
        pytest.param(_parquet(record=["x" * 2**20] * 300), "unpacked", id="a bomb"),
    ],
)
def test_parquet_that_holds_no_records_is_refused(content: bytes, said: str):
    with pytest.raises(RecordUnreadable, match=said):
        from_parquet(content, "runs.parquet")


def test_csv_gives_a_spreadsheet_no_formula():
    hostile = replace(RECORD, model=replace(RECORD.model, title='=HYPERLINK("http://x")'))
    minus = replace(FAILED, model=replace(RECORD.model, title="-1+1"))
    rows = list(csv.DictReader(io.StringIO(to_csv(map(row_of, (hostile, minus))).decode())))
    assert [row["model_title"] for row in rows] == ['\'=HYPERLINK("http://x")', "'-1+1"]
    assert float(rows[0]["median_s"]) == TIMING.median_s
    assert rows[1]["median_s"] == ""
