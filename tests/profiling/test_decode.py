"""A step of decode beside PyTorch's memory tracker: the third token of a batch, its cache full."""

import pytest
import torch
from torch.distributed._tools.mem_tracker import MemTracker

from attnscope.models import faked
from attnscope.models.shape import ModelShape, config_of, shape_of
from attnscope.profiling.calculator import estimate
from benchmarks.calculator_models import MODELS

BATCH = 4


def _traced(shape: ModelShape, backend: str, length: int) -> int:
    tracker = MemTracker()
    fake = faked.faked(config_of(shape), torch.bfloat16, backend)
    with fake as (model, mode), mode, torch.no_grad():
        cache = faked.prompt(model, BATCH, length - 2)["past_key_values"]
        one = torch.zeros(BATCH, 1, dtype=torch.long)
        for ids in (torch.zeros(BATCH, length - 2, dtype=torch.long), one):
            model(ids, past_key_values=cache, logits_to_keep=1)
        for layer in cache.layers:
            tracker.track_external(layer.keys, layer.values)
        tracker.track_external(model, one)
        with tracker:
            model(one, past_key_values=cache)
    return tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]


@pytest.mark.parametrize(
    ("model", "backend", "length"),
    [
        ("llama3_8b", "eager", 16_384),
        ("llama3_8b", "sdpa_flash", 16_384),
        ("gemma3_12b", "eager", 4096),  # windows of 1 024 beside full layers
        ("mistral_7b", "transformers_eager", 16_384),
        ("mixtral_8x7b", "tiled", 4096),
    ],
)
def test_a_step_is_the_traced_one(model: str, backend: str, length: int) -> None:
    shape = shape_of(MODELS[model]())
    found = estimate(shape, backend=backend, batch=BATCH, length=length, phase="decode")
    assert found.total_bytes == pytest.approx(_traced(shape, backend, length), rel=1e-4)
