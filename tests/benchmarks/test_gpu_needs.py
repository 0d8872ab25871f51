"""What a GPU machine must have for the benchmark: PyTorch, Triton and what reads their results, no more."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

ALONE = """
import re, sys
from importlib import metadata

def needed(names):
    found, left = set(), list(names)
    while left:
        name = re.sub("[-_.]+", "-", left.pop()).lower()
        if name in found:
            continue
        found.add(name)
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        left += [re.match(r"[\\w.-]+", line)[0] for line in lines if "extra ==" not in line]
    return found

allowed = needed(["torch", "triton", "numpy", "transformers", "pandas"])
of = metadata.packages_distributions()
blocked = {
    top for top, owners in of.items()
    if not {re.sub("[-_.]+", "-", owner).lower() for owner in owners} & allowed
} - {"attnscope"}

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

assert {"streamlit", "pytest", "plotly"} <= blocked
sys.meta_path.insert(0, Blocked())

import pathlib, torch
from benchmarks.gpu import run
names = list(run.PARTS)
made = run.run(torch.device("cpu"), names, seconds=200, out=pathlib.Path(sys.argv[1]))
ceilings, (section, record) = next(made), next(made)
assert ceilings[0] == "ceilings" and section == names[0]
assert all(found["right"] for found in record["backends"].values()), record
print("first record:", record["name"])
"""


def test_needs_torch_triton_numpy_transformers_and_pandas_at_most(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", ALONE, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "first record: causal, float16" in result.stdout
