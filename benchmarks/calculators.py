"""Other calculators' figures beside ours, and beside the traced peak of the real model: the same cells.

    python -m venv data/calculators && data/calculators/bin/pip install -r benchmarks/calculators-requirements.txt
    data/calculators/bin/pip install --no-deps llm-analysis==0.2.2
    nice python -m benchmarks.calculators --peers data/calculators/bin/python --llm-viewer … --cookbook …

The last two are checkouts of hahnyuan/LLM-Viewer and EleutherAI/cookbook, which are no packages.

A cell is the prefill of one prompt in bfloat16, its cache kept, the last logits given, with transformers' own
eager attention or its SDPA on the flash kernel. The truth is PyTorch's memory tracker over fake tensors
(profiling/tracker.py): it owes nothing to any calculator. A calculator without a term for the kernel gives
the same figure for both; one that cannot read a model says so.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
from itertools import product
from pathlib import Path

from attnscope.kernels.errors import AttnscopeError
from attnscope.models.shape import ModelShape, shape_of
from attnscope.profiling.calculator import estimate
from attnscope.profiling.tracker import traced_peak
from benchmarks.calculators_peers import CALCULATORS
from benchmarks.results import append

CONFIGS = Path(__file__).resolve().parents[1] / "assets" / "configs"
MODELS = ("llama-2-7b", "llama-3.1-8b", "mistral-7b", "gemma-2-9b")
LENGTHS = (4096, 16_384)
ATTENTIONS = {"eager": "transformers_eager", "flash": "transformers_sdpa"}
OURS = "attnscope"
_TIMEOUT_S = 600


def theirs(
    options: argparse.Namespace, calculator: str, model: Path, length: int, attention: str
) -> dict:
    """One peer's figure, or what kept it from giving one."""
    script = Path(__file__).with_name("calculators_peers.py")
    checkouts = {"LLM-Viewer": options.llm_viewer, "EleutherAI cookbook": options.cookbook}
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(model, Path(folder, "config.json"))
        asked = [calculator, folder, str(length), attention]
        checkout = checkouts.get(calculator)
        done = subprocess.run(
            [options.peers, str(script), *asked, *([str(checkout.resolve())] if checkout else [])],
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""},
        )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return {"refused": lines[-1][:200] if lines else f"exit code {done.returncode}"}
    return json.loads(done.stdout.strip().splitlines()[-1])


def ours(shape: ModelShape, length: int, attention: str) -> dict:
    """Our figure of the cell."""
    found = estimate(shape, backend=ATTENTIONS[attention], length=length)
    return {"bytes": found.total_bytes}


def cell(options: argparse.Namespace, name: str, length: int, attention: str) -> list[dict]:
    """Every calculator's record of one cell."""
    model = CONFIGS / f"{name}.json"
    shape = shape_of(model.read_text())
    about = {"model": name, "length": length, "attention": attention}
    try:
        truth = traced_peak(shape, backend=ATTENTIONS[attention], length=length).total_bytes
    except AttnscopeError as error:
        return [{**about, "calculator": "traced", "refused": str(error)}]
    records = [{**about, "calculator": OURS, **ours(shape, length, attention)}]
    for calculator in CALCULATORS:
        found = theirs(options, calculator, model, length, attention)
        records.append({**about, "calculator": calculator, **found})
    return [{**record, **_against(record, truth)} for record in records]


def _against(record: dict, truth: int) -> dict:
    if "bytes" not in record:
        return {"traced_bytes": truth}
    return {"traced_bytes": truth, "error_percent": round(100 * (record["bytes"] / truth - 1), 3)}


def summary(records: list[dict]) -> str:
    """Cells answered, median and largest error of each calculator."""
    lines = []
    for calculator in (OURS, *CALCULATORS):
        errors = [
            abs(record["error_percent"])
            for record in records
            if record["calculator"] == calculator and "error_percent" in record
        ]
        shown = (
            f"median {statistics.median(errors):7.3f} %  worst {max(errors):7.3f} %"
            if errors
            else "no cell answered"
        )
        lines.append(f"{calculator:<20} {len(errors):>3} cells  {shown}")
    return "\n".join(lines)


def main() -> None:
    """Fills the table and appends it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", required=True, help="the Python of the peers' environment")
    parser.add_argument("--llm-viewer", required=True, type=Path)
    parser.add_argument("--cookbook", required=True, type=Path)
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    options = parser.parse_args()
    records = []
    for name, length, attention in product(options.models, LENGTHS, ATTENTIONS):
        found = cell(options, name, length, attention)
        for record in found:
            answer = record.get("refused") or f"{record['error_percent']:+.3f} %"
            print(f"{name:<14} {length:>6} {attention:<6} {record['calculator']:<20} {answer}")
        records += found
    print(summary(records))
    print(f"appended to {append('calculators', records)}")


if __name__ == "__main__":
    main()
