"""`attnscope profile` as it is typed, on the demo model."""

import gzip
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from attnscope.app.cli import main
from attnscope.app.commands import profile_plan as cli_profile_plan
from attnscope.app.commands.profile import rows_of
from attnscope.kernels.errors import ModelUnsupported
from attnscope.models import memory, shape
from attnscope.models.loading import LoadedModel
from attnscope.profiling import ceilings
from attnscope.profiling import measure as measuring
from attnscope.profiling.asked import unmeasured
from attnscope.profiling.ceilings import keep_ceilings, kept_ceilings
from attnscope.profiling.machine import machine_of
from attnscope.profiling.record import Cell, Failure, RunRecord
from attnscope.profiling.store import Store
from attnscope.profiling.sweep import read_records
from attnscope.profiling.units import latency, nbytes
from tests.profiling.measured_ceilings import CEILINGS
from tests.profiling.records import RECORD

QUICK = ["profile", "--lengths", "16", "--phase", "prefill", "--budget", "0"]


@pytest.fixture(autouse=True)
def history(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("ATTNSCOPE_DATA", str(tmp_path / "data"))
    here = replace(CEILINGS, machine=machine_of(torch.device("cpu")))
    keep_ceilings(here, tmp_path / "data" / "ceilings")
    return tmp_path / "data" / "history.sqlite3"


def test_every_run_is_kept_in_the_history_unless_it_shall_not(
    history: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run.jsonl"
    asked = [*QUICK, "--backends", "sdpa_flash,sdpa_cudnn", "--out", str(out)]
    assert main([*asked, "--no-save"]) == 0
    assert not history.exists()
    # What the file had from before is taken in as well, failures too.
    assert main(asked) == 0
    with Store.open(history) as store:
        assert {row.id for row in store.find()} == {record.id for record in read_records(out)}
        assert store.count() == 2


def test_a_history_that_cannot_be_opened_is_said_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ATTNSCOPE_DATA", str(tmp_path / "file" / "data"))
    out = tmp_path / "run.jsonl"
    assert main([*QUICK, "--backends", "eager", "--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert "Not a directory" in told
    assert "--no-save" in told
    assert not out.exists()


def test_without_sqlalchemy_it_measures_and_says_what_is_not_kept(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, history: Path
) -> None:
    monkeypatch.setitem(sys.modules, "attnscope.profiling.store", None)
    assert main([*QUICK, "--backends", "sdpa_flash"]) == 0
    assert "not kept in the history" in capsys.readouterr().err
    assert not history.exists()


def test_it_measures_prints_and_keeps_what_it_found(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out, traces = tmp_path / "run.jsonl", tmp_path / "traces"
    given = [*QUICK, "--backends", "sdpa_flash,sdpa_cudnn", "--phase", "prefill,decode"]
    assert main([*given, "--out", str(out), "--trace", str(traces)]) == 0
    told = capsys.readouterr()
    records = read_records(out)
    assert [(record.cell.backend, record.cell.phase) for record in records] == [
        (record.cell.backend, phase)
        for record, phase in zip(records, ["prefill"] * 2 + ["decode"] * 2, strict=True)
    ]
    lines = told.out.splitlines()
    assert lines[0].startswith("Demo model in float32 on ")
    assert lines[1].split()[:4] == ["backend", "phase", "batch", "tokens"]
    assert len(lines) == 6 + 5
    for line, record in zip(lines[2:6], records, strict=True):
        assert line.startswith(record.cell.backend)
        measured = "flash (CPU)" in line and "tokens" not in line
        assert measured == (record.failure is None)
        assert ("refused: SDPA cuDNN" in line) == (record.failure is not None)
        assert "cut short by its budget" in line or record.failure is not None
    assert sorted(path.name for path in traces.iterdir()) == [
        "Demo-model_sdpa_flash_decode_1x16_float32.json.gz",
        "Demo-model_sdpa_flash_prefill_1x16_float32.json.gz",
    ]
    trace = json.loads(gzip.decompress(next(traces.iterdir()).read_bytes()))
    assert trace["traceEvents"]
    # Asked again it reads what is there, and prints the same.
    assert main([*given, "--out", str(out)]) == 0
    assert capsys.readouterr().out == told.out
    assert read_records(out) == records


def test_each_cell_is_predicted_before_the_first_runs_and_told_beside_what_it_took(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out, report = tmp_path / "run.jsonl", tmp_path / "report.html"
    given = [*QUICK, "--backends", "eager,sdpa_cudnn", "--lengths", "128"]
    assert main([*given, "--out", str(out), "--html", str(report)]) == 0
    told = capsys.readouterr()
    title, header, *cells = told.err.splitlines()[:4]
    assert "least times at ceilings measured on" in title
    assert re.split("  +", header) == list(cli_profile_plan.HEADER)
    planned = {line.split()[0]: line for line in cells}
    assert "refused: PyTorch has this kernel on cuda only" in planned["sdpa_cudnn"]
    by_backend = {record.cell.backend: record for record in read_records(out)}
    eager = by_backend["eager"]
    assert eager.peak is not None
    assert eager.prediction is not None
    assert eager.predicted_bytes == pytest.approx(eager.peak.allocated.value, rel=0.01)
    assert all(record.prediction and record.predicted_bytes for record in by_backend.values())
    for text in (nbytes(eager.predicted_bytes or 0), latency(eager.prediction.seconds)):
        assert text in planned["eager"]
        assert text in told.out.partition("Predicted beside measured")[2]
        assert text in report.read_text(encoding="utf-8")


@pytest.fixture
def _canned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells are planned and recorded, and the figures are those of another run: they take no time."""
    failure = Failure(outcome="failed", reason="not run")

    def measure(model: LoadedModel, cell: Cell, **asked: Any) -> RunRecord:
        empty = unmeasured(model, cell, failure, **asked)
        return replace(empty, failure=None, timing=RECORD.timing, peak=RECORD.peak)

    monkeypatch.setattr(measuring, "measure", measure)


@pytest.mark.usefixtures("_canned")
def test_what_is_predicted_not_to_fit_is_skipped_unless_forced(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda device: 4 * 2**20)
    out = tmp_path / "run.jsonl"
    given = [*QUICK, "--backends", "eager", "--lengths", "16,256", "--out", str(out)]
    assert main(given) == 0
    told = capsys.readouterr()
    assert "skipped: predicted to need" in told.err
    assert "1 of 2 cells are skipped; --force runs them too." in told.err
    assert "skipped: predicted to need" in told.out
    assert [record.failure is None for record in read_records(out)] == [True, False]
    assert main([*given, "--force"]) == 0
    assert "skipped" not in capsys.readouterr().err
    assert [record.timing is not None for record in read_records(out)] == [True, False, True]


@pytest.mark.usefixtures("_canned")
def test_the_first_plan_of_a_device_measures_its_ceilings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, history: Path
) -> None:
    folder, cpu = history.parent / "ceilings", torch.device("cpu")
    found = kept_ceilings(cpu, folder)
    assert found is not None
    next(folder.iterdir()).unlink()
    monkeypatch.setattr(ceilings, "measure_ceilings", lambda device: found)
    for told in (True, False):
        assert main([*QUICK, "--backends", "tiled", "--no-save"]) == 0
        assert ("Measuring what cpu can do" in capsys.readouterr().err) is told
    assert kept_ceilings(cpu, folder) == found


@pytest.mark.usefixtures("_canned")
def test_a_model_of_which_nothing_can_be_predicted_is_measured_all_the_same(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(config: object) -> None:
        raise ModelUnsupported("It reads numbers.", "Measure it.")

    monkeypatch.setattr(shape, "shape_of", unknown)
    assert main([*QUICK, "--backends", "tiled", "--no-save"]) == 0
    told = capsys.readouterr()
    assert "nothing is predicted of Demo model: It reads numbers." in told.err
    assert "Predicted beside measured" not in told.out


def test_without_rich_it_says_the_same_in_plain_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("rich.progress", "rich.console", "rich.table", "rich.text"):
        monkeypatch.setitem(sys.modules, name, None)
    out = tmp_path / "run.jsonl"
    assert main([*QUICK, "--backends", "eager", "--out", str(out)]) == 0
    told = capsys.readouterr()
    assert told.err.splitlines()[-2:] == [
        "Demo model: 0 of 1, eager prefill 1 by 16",
        "Demo model: 1 of 1",
    ]
    assert re.search(r"^eager +prefill +1 +16 +\d.*dense", told.out, re.MULTILINE)


def test_on_a_terminal_rich_draws_the_same_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "run.jsonl"
    assert main([*QUICK, "--backends", "eager", "--out", str(out)]) == 0
    capsys.readouterr()
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main([*QUICK, "--backends", "eager", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    for cell in rows_of(list(read_records(out)))[0]:
        assert cell in told


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--backends", "magic"], "No backend 'magic'"),
        (["--backends", ""], "nothing to measure"),
        (["--lengths", "many"], "--lengths takes whole numbers, not 'many'"),
        (["--lengths", "0"], "length must be at least 1, got 0"),
        (["--batches", "1.5"], "--batches takes whole numbers"),
        (["--phase", "training"], "There is no phase 'training'"),
        (["--dtypes", "int3"], "int3"),
        (["--model", "/no/such/folder"], "There is no folder"),
        (["--device", "cuda"], "This machine has no cuda"),
        (["--backends", "sdpa_cudnn"], "Nothing could be measured: SDPA cuDNN"),
        (["--lengths", "4096"], "Nothing could be measured: Demo model reads 2,048 tokens"),
        (["--out", "/proc/no/file.jsonl"], "attnscope: "),
    ],
)
def test_what_it_cannot_do_is_one_sentence_and_no_success(
    capsys: pytest.CaptureFixture[str], given: list[str], words: str
) -> None:
    if "--device" in given and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert main([*QUICK, "--backends", "eager", *given]) == 2
    told = capsys.readouterr().err.splitlines()
    assert words in told[-1]
    assert told[-1].startswith("attnscope: ")
    assert not any("Traceback" in line for line in told)


def test_an_interruption_keeps_what_is_there_and_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "run.jsonl"
    kept = measuring.measure
    asked = []

    def interrupted(*given, **others):
        asked.append(given)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return kept(*given, **others)

    monkeypatch.setattr(measuring, "measure", interrupted)
    assert main([*QUICK, "--backends", "eager,tiled", "--out", str(out)]) == 2
    assert f"is in {out}: the same command goes on" in capsys.readouterr().err
    assert len(read_records(out)) == 1
    monkeypatch.setattr(measuring, "measure", kept)
    assert main([*QUICK, "--backends", "eager,tiled", "--out", str(out)]) == 0
    assert len(read_records(out)) == 2


def test_neither_streamlit_nor_plotly_is_imported_for_it() -> None:
    code = (
        "import sys; from attnscope.app.cli import main; "
        f"code = main({[*QUICK, '--backends', 'tiled']!r}); "
        "print(code, [m for m in ('streamlit', 'plotly') if m in sys.modules])"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert told.stdout.splitlines()[-1] == "0 []"
    assert "profiler_start" not in told.stderr
