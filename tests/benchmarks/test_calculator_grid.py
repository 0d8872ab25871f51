"""The committed grid meets its goal: within 2 % on 95 % of its cells, never over 5 %."""

import json

from benchmarks import results
from benchmarks.calculator_grid import TOPIC
from benchmarks.calculator_models import MODELS


def _cells() -> list[dict]:
    """The latest of each."""
    files = sorted(results.RESULTS.glob(f"*_{TOPIC}.jsonl"))
    lines = (json.loads(line) for file in files for line in file.read_text().splitlines())
    what = ("model", "backend", "length", "optimizer", "checkpointing")
    return list({tuple(map(line.get, what)): line for line in lines}.values())


def test_the_grid_meets_its_goal() -> None:
    errors = [abs(cell["error_percent"]) for cell in _cells() if "error_percent" in cell]
    assert len(errors) >= 60
    assert sum(error <= 2 for error in errors) >= 0.95 * len(errors)
    assert max(errors) <= 5


def test_the_grid_holds_every_model_backend_and_length() -> None:
    traced = [cell for cell in _cells() if "error_percent" in cell]
    assert {cell["model"] for cell in traced} == set(MODELS)
    assert {cell["length"] for cell in traced} == {1024, 16_384}
    for model in MODELS:
        for length in (1024, 16_384):
            backends = {
                cell["backend"]
                for cell in traced
                if (cell["model"], cell["length"]) == (model, length)
            }
            assert {"eager", "tiled", "transformers_eager"} <= backends


def test_what_is_not_traced_has_its_reason() -> None:
    refused = [cell["refused"] for cell in _cells() if "error_percent" not in cell]
    assert all(any(word in reason for word in REASONS) for reason in refused)


REASONS = (
    *("mask of", "softcap", "as wide as", "does not support", "no log-sum-exp"),
    *("PyTorch chooses a kernel by device", "in training mode, with dropout"),
    *("drops attention weights in training", "position bias is learned"),
)
