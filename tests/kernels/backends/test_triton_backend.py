"""What the Triton backend refuses, on machines that have a GPU and on those that have none."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attnscope.kernels.backends import triton_refusals
from attnscope.kernels.patterns.predicate import Predicate
from attnscope.kernels.registry import backend
from tests.shapes import BAND_BIAS_CASES, CASES, Case

ROOT = Path(__file__).parents[3]
FOUND = backend("triton")
CALL = Case(id="causal").inputs("float16").call
GPU = torch.device("cuda")
EVEN = Predicate(function=lambda query, key: (query - key) % 2 == 0, label="even steps")


@pytest.fixture
def _interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")


def test_refuses_a_cpu_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    refusal = FOUND.refuses(CALL, torch.device("cpu"))
    assert refusal is not None
    assert "need an NVIDIA or AMD GPU" in refusal.reason
    assert "tiled" in refusal.remedy


@pytest.mark.usefixtures("_interpreter")
def test_takes_a_cpu_that_interprets_but_for_bfloat16() -> None:
    cpu = torch.device("cpu")
    assert FOUND.refuses(CALL, cpu) is None
    refusal = FOUND.refuses(replace(CALL, dtype="bfloat16"), cpu)
    assert refusal is not None
    assert "bfloat16" in refusal.reason


def test_refuses_where_triton_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_refusals, "missing", lambda device: "Triton is not installed")
    refusal = FOUND.refuses(CALL, GPU)
    assert refusal is not None
    assert refusal.reason == "Triton is not installed"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dtype": "float64"}, "float32, float16 and bfloat16"),
        ({"head_dim": 257}, "up to 256 wide"),
        ({"value_dim": 300}, "up to 256 wide"),
        ({"pattern": EVEN}, "visits a band of keys, and even steps is none"),
        ({"scale": 0.0}, "scale is above 0"),
        ({"scale": -0.1}, "scale is above 0"),
    ],
)
def test_refuses_on_a_gpu_with_the_reason(changes: dict, reason: str) -> None:
    refusal = FOUND.refuses(replace(CALL, **changes), GPU)
    assert refusal is not None
    assert reason in refusal.reason
    assert refusal.remedy.endswith(".")


def test_takes_every_odd_case_on_a_gpu() -> None:
    cases = (*CASES, *BAND_BIAS_CASES)
    for dtype in ("float32", "float16", "bfloat16"):
        refused = [case.id for case in cases if FOUND.refuses(case.inputs(dtype).call, GPU)]
        assert refused == []


def test_listing_the_backends_needs_no_triton() -> None:
    code = (
        "import sys; sys.modules['triton'] = None; "
        "from attnscope.kernels.registry import BACKENDS; "
        "from attnscope.kernels.triton.device import missing; "
        "import torch; print(missing(torch.device('cuda')))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.stdout.strip() == "Triton is not installed", result.stderr
