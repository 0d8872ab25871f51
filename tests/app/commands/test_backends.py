"""The command as it is typed: what it prints, what it writes, and that a wrong backend is no success."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from attnscope.app.cli import main
from attnscope.kernels import registry
from attnscope.profiling.backend_check import BackendResult
from attnscope.profiling.json_data import from_data
from tests.profiling.faults import FAULTS
from tests.profiling.planted_backends import Planted

PROMPT = "Mara found the silver key."
QUICK = ["backends", PROMPT, "--budget", "0.1"]


@pytest.fixture(autouse=True)
def one_thread():
    import torch

    torch.set_num_threads(1)


def test_it_prints_a_row_a_backend_and_writes_all_it_found(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "found.json"
    given = [*QUICK, "--backends", "eager,tiled,sdpa_cudnn,linear", "--json", str(out)]
    assert main(given) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r"Demo model in float32 on .+, \d+ tokens", lines[0])
    assert lines[1].split()[:2] == ["backend", "verdict"]
    verdicts = [line.split()[:2] for line in lines[2:6]]
    assert verdicts == [
        ["eager", "exact"],
        ["tiled", "exact"],
        ["sdpa_cudnn", "refused"],
        ["linear", "approximates"],
    ]
    assert lines[6] == f"wrote {out}"
    found = json.loads(out.read_text())
    results = [from_data(BackendResult, each) for each in found["results"]]
    assert [each.name for each in results] == ["eager", "tiled", "sdpa_cudnn", "linear"]
    assert found["model"]["source"] == "demo"
    assert len(found["token_ids"][0]) > 5


def test_a_wrong_backend_is_no_success_and_says_where_and_why(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = next(each for each in FAULTS if each.id == "a query sees the key after its own")
    monkeypatch.setattr(registry, "BACKENDS", (*registry.BACKENDS, Planted(fault=fault)))
    assert main([*QUICK, "--backends", "planted"]) == 2
    told = capsys.readouterr()
    assert re.search(r"^planted +wrong ", told.out, re.MULTILINE)
    assert re.search(r"planted, layer 0, head \d: Query \d+ sees key \d+, the one after", told.out)
    assert told.err.splitlines()[-1].startswith("attnscope: Wrong here: planted.")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--backends", "warp"], "No backend 'warp'"),
        (["--backends", ""], "No backend is asked for"),
        (["--backends", "sdpa_cudnn"], "Nothing could be checked: SDPA cuDNN"),
        (["--model", "/no/such/folder"], "There is no folder"),
        (["--dtype", "int3"], "int3"),
        (["--file", "/no/such/file"], "Both a prompt and --file"),
    ],
)
def test_what_it_cannot_do_is_one_sentence_and_no_success(
    capsys: pytest.CaptureFixture[str], given: list[str], words: str
) -> None:
    assert main([*QUICK, *given]) == 2
    told = capsys.readouterr().err.splitlines()
    assert words in told[-1]
    assert told[-1].startswith("attnscope: ")


def test_without_rich_progress_is_told_line_by_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("rich", "rich.progress", "rich.console", "rich.table", "rich.text"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main([*QUICK, "--backends", "tiled"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Demo model: 0 %, exact attention in float64"
    assert any("tiled: layer 3" in line for line in lines)
    assert len(lines) == len(set(lines))


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
