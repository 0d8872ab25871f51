"""What the compile check calls wrong, and that what is recorded is what ships."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from attnscope.kernels.triton.resources import Resources
from attnscope.kernels.triton.shipped import Shipped, every_shipped
from benchmarks import compile_check

ROOT = Path(__file__).parents[2]
RECORDED = sorted((ROOT / "benchmarks" / "compiled").glob("triton-*.json"))
GOOD = Resources(
    registers=200,
    stack_bytes=0,
    spills=0,
    shared_bytes=160 * 1024,
    warps=8,
    wgmma=24,
    mma=0,
    setmaxnreg=0,
)
TALL = Shipped(name="tall", capabilities=(80, 90), launch=lambda capability: None, wants_wgmma=True)


def test_a_good_kernel_is_not_complained_of() -> None:
    assert compile_check.complaints(TALL, 90, {"kernel": GOOD}) == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"spills": 3}, "3 spills, 0 bytes of stack"),
        ({"stack_bytes": 8}, "0 spills, 8 bytes of stack"),
        ({"shared_bytes": 227 * 1024 + 1}, "232449 bytes shared, the device has 232448"),
        ({"wgmma": 0}, "not on wgmma"),
        ({"mma": 24}, "kernel: not on wgmma"),
    ],
)
def test_a_bad_kernel_is(wrong: dict[str, int], words: str) -> None:
    (said,) = compile_check.complaints(TALL, 90, {"kernel": replace(GOOD, **wrong)})
    assert said.startswith("tall, sm_90")
    assert words in said


def test_what_an_entry_promises_must_be_there() -> None:
    promised = replace(TALL, wants=("bulk_copies", "setmaxnreg"))
    kept = {"kernel": replace(GOOD, bulk_copies=6, setmaxnreg=8)}
    assert compile_check.complaints(promised, 90, kept) == []
    said = compile_check.complaints(promised, 90, {"kernel": replace(GOOD, bulk_copies=6)})
    assert said == ["tall, sm_90, kernel: no setmaxnreg"]


def test_bulk_copies_are_recorded_where_there_are_any() -> None:
    assert "bulk_copies" not in compile_check.figures_of(GOOD)
    assert compile_check.figures_of(replace(GOOD, bulk_copies=6))["bulk_copies"] == 6
    assert Resources(**compile_check.figures_of(GOOD)) == GOOD


def test_only_tall_tiles_on_hopper_must_have_wgmma() -> None:
    slow = {"kernel": replace(GOOD, wgmma=0, mma=24, shared_bytes=0)}
    assert compile_check.complaints(TALL, 80, slow) == []
    short = replace(TALL, wants_wgmma=False)
    assert compile_check.complaints(short, 90, slow) == []


def test_a_figure_that_moved_is_a_difference_and_so_is_a_row_unknown() -> None:
    row = {"kernel": asdict(GOOD)}
    moved = {"kernel": asdict(replace(GOOD, registers=201))}
    assert compile_check.differences({"a": row}, {"a": row, "b": row}) == []
    assert "201" in compile_check.differences({"a": moved}, {"a": row})[0]
    assert "the record says nothing" in compile_check.differences({"c": row}, {"a": row})[0]


def test_a_record_is_read_as_it_was_written(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(compile_check, "RECORDS", tmp_path / "compiled")
    table = {"b, sm_90": {"kernel": asdict(GOOD)}, "a, sm_90": {"kernel": asdict(GOOD)}}
    path = compile_check.write_record("1.2.3", table)
    assert compile_check.read_record("1.2.3") == table
    assert path.read_text().index('"a, sm_90"') < path.read_text().index('"b, sm_90"')
    assert compile_check.read_record("9.9.9") is None


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_a_record_holds_what_ships_no_more_no_less_and_nothing_wrong(path: Path) -> None:
    recorded = json.loads(path.read_text())
    ships = {
        compile_check.key(entry.name, capability): (entry, capability)
        for entry in every_shipped()
        for capability in entry.capabilities
    }
    assert recorded.keys() == ships.keys()
    for row, (entry, capability) in ships.items():
        found = {kernel: Resources(**figures) for kernel, figures in recorded[row].items()}
        assert compile_check.complaints(entry, capability, found) == []


def test_these_compile_to_what_is_recorded() -> None:
    command = [sys.executable, "-m", "benchmarks.compile_check", "--capability", "90"]
    names = (
        "exponentials",
        "flash_forward, bfloat16, 64, causal",
        "flash_hopper, bfloat16, 128, full",
        "flash_gluon, bfloat16, 128, full",
        "flash_backward, bfloat16, 64, causal",
        "decode, bfloat16, 128, causal",
    )
    chosen = [argument for name in names for argument in ("--only", name)]
    inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    result = subprocess.run(
        command + chosen, cwd=ROOT, env=inherited, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(names)} compiled, 0 wrong" in result.stdout
