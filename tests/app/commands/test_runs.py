"""`attnscope runs` as it is typed."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from attnscope.app.cli import main
from attnscope.profiling.record_files import from_lines, from_parquet, to_lines
from attnscope.profiling.store import Store
from attnscope.profiling.units import latency
from tests.profiling.records import FAILED, RECORD, TIMING

RECORDS = (
    replace(RECORD, model=replace(RECORD.model, title="Demo \x1b[2Jmodel")),
    replace(FAILED, cell=replace(RECORD.cell, backend="eager")),
)


@pytest.fixture(autouse=True)
def history(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("ATTNSCOPE_DATA", str(tmp_path))
    return tmp_path / "history.sqlite3"


@pytest.fixture
def kept(history: Path) -> Path:
    with Store.open(history) as store:
        store.add_all(RECORDS)
    return history


@pytest.mark.usefixtures("kept")
def test_list_tells_a_line_a_run(capsys: pytest.CaptureFixture[str]):
    assert main(["runs", "list"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["run", "when", "model"]
    assert {line.split()[0] for line in lines} == {record.id for record in RECORDS}
    assert any("Demo \ufffd[2Jmodel" in line for line in lines)
    assert any("out of memory" in line and "eager" in line for line in lines)
    assert any(latency(TIMING.median_s) in line for line in lines)
    assert main(["runs", "list", "--backend", "eager"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main(["runs", "list", "--limit", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 more: raise --limit"
    assert main(["runs", "list", "--text", "nowhere"]) == 0
    assert "There is no such run." in capsys.readouterr().out


def test_an_empty_history_says_how_to_fill_it(capsys: pytest.CaptureFixture[str]):
    assert main(["runs", "list"]) == 0
    assert "attnscope profile" in capsys.readouterr().out


@pytest.mark.usefixtures("kept")
def test_show_tells_the_whole_record(capsys: pytest.CaptureFixture[str]):
    assert main(["runs", "show", RECORDS[0].id]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(RECORDS[0].to_json())


@pytest.mark.parametrize("name", ["runs.jsonl", "runs.parquet"])
def test_what_is_exported_is_imported_elsewhere_unchanged(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    kept: Path,
    tmp_path: Path,
    name: str,
):
    file, elsewhere = tmp_path / name, tmp_path / "elsewhere"
    assert main(["runs", "export", str(file)]) == 0
    read = {".jsonl": from_lines, ".parquet": from_parquet}[file.suffix](file.read_bytes(), name)
    assert set(read) == set(RECORDS)
    monkeypatch.setenv("ATTNSCOPE_DATA", str(elsewhere))
    assert main(["runs", "import", str(file)]) == 0
    assert main(["runs", "import", str(file)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[-2:] == [
        "2 new, 0 known already",
        "0 new, 2 known already",
    ]
    with Store.open(kept) as here, Store.open(elsewhere / "history.sqlite3") as there:
        for record in RECORDS:
            assert to_lines([there.get(record.id)]) == to_lines([here.get(record.id)])
        assert {row.imported_from for row in there.find()} == {name}


@pytest.mark.usefixtures("kept")
def test_csv_is_written_whole_or_not_at_all(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    file = tmp_path / "runs.csv"
    assert main(["runs", "export", str(file), "--backend", "eager"]) == 0
    (row,) = csv.DictReader(io.StringIO(file.read_text()))
    assert (row["backend"], row["outcome"]) == ("eager", "out_of_memory")
    assert main(["runs", "export", str(tmp_path / "no" / "runs.csv")]) == 2
    assert "No such file" in capsys.readouterr().err
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["show", "beef"], "There is no run 'beef'"),
        (["export", "runs.exe"], "ends with none of"),
        (["import", "runs.csv"], "ends with none of"),
        (["import", "/no/such.jsonl"], "No such file"),
        (["list", "--limit", "0"], "--limit must be at least 1"),
        (["list", "--text", "\0"], "no run can have"),
    ],
)
def test_what_it_cannot_do_is_one_sentence(
    capsys: pytest.CaptureFixture[str], given: list[str], words: str
):
    assert main(["runs", *given]) == 2
    told = capsys.readouterr().err
    assert words in told
    assert "Traceback" not in told


def test_a_damaged_history_is_told_of(capsys: pytest.CaptureFixture[str], history: Path):
    history.write_bytes(b"no database" * 100)
    assert main(["runs", "list"]) == 0
    assert "is kept as" in capsys.readouterr().err
