"""What is said of our Triton kernels where they cannot run."""

import subprocess
import sys
from pathlib import Path

import torch

from attnscope.kernels.backends.triton_refusals import refuses_triton
from tests.shapes import Case

ROOT = Path(__file__).parents[3]

WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None  # as if it were not installed
import torch
from attnscope.kernels.registry import BACKENDS
from tests.shapes import Case

call = Case(id="causal").inputs().call
ours = [found for found in BACKENDS if found.name.startswith("triton")]
for found in ours:
    found.cost(call)
print({found.refuses(call, torch.device("cuda")).reason for found in ours})
"""


def test_without_triton_the_backends_are_listed_and_refuse() -> None:
    command = [sys.executable, "-c", WITHOUT_TRITON]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "{'Triton is not installed'}"


def test_a_cpu_without_the_interpreter_is_told_what_runs_there(monkeypatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    refusal = refuses_triton(Case(id="causal").inputs().call, torch.device("cpu"))
    assert refusal is not None
    assert "need an NVIDIA or AMD GPU, and the tensors are on cpu" in refusal.reason
    assert "tiled" in refusal.remedy
