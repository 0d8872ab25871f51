"""The calculator's 8-bit states beside those that bitsandbytes kept, as they are recorded."""

import json
from typing import Any

import pytest

from attnscope.models.shape import shape_of
from attnscope.profiling.training_memory import kept
from benchmarks.optimizer_states import MODELS, TOPIC
from benchmarks.results import RESULTS

MEASURED = [
    json.loads(line)
    for file in sorted(RESULTS.glob(f"*_{TOPIC}.jsonl"))
    for line in file.read_text(encoding="utf-8").splitlines()
]


def test_every_model_was_measured() -> None:
    assert {record["model"] for record in MEASURED} == set(MODELS)


@pytest.mark.parametrize("measured", MEASURED, ids=lambda record: record["model"])
def test_states_are_those_that_bitsandbytes_kept(measured: dict[str, Any]) -> None:
    shape = shape_of(MODELS[measured["model"]]())
    assert shape.parameters == measured["parameters"]
    assert kept(shape, "adamw_8bit", 4)[-1].nbytes == measured["bitsandbytes_bytes"]
