"""A real step of training on a CPU beside the calculator, and the model that it leaves alone."""

from typing import Any

import pytest
import torch

from attnscope.kernels.errors import UnsupportedCall
from attnscope.models.loading import LoadedModel
from attnscope.models.shape import shape_of
from attnscope.profiling.calculator import estimate
from attnscope.profiling.training_run import training_peak

ASKED: list[dict[str, Any]] = [
    {"backend": "sdpa_flash", "optimizer": "adamw"},
    {"backend": "sdpa_math", "optimizer": "sgd", "checkpointing": True},
    {"backend": "transformers_eager", "optimizer": "adafactor"},
]


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: asked["backend"])
def test_the_estimate_is_the_measured_peak(demo: LoadedModel, asked: dict[str, Any]) -> None:
    before = [weight.detach().clone() for weight in demo.model.parameters()]
    shape = shape_of(demo.model.config)
    given = {**asked, "batch": 2, "length": 96}
    found = estimate(shape, dtype="float32", phase="training", **given)
    measured = training_peak(demo, **given)
    assert measured.weights == found.term("weights").nbytes + shape.buffer_bytes
    assert measured.total == measured.weights + measured.kept + measured.step
    # Matrix products on a CPU take scratch memory, which the estimate does not have.
    assert found.total_bytes == pytest.approx(measured.total, rel=1e-2)
    assert all(map(torch.equal, before, demo.model.parameters()))
    assert all(weight.grad is None for weight in demo.model.parameters())
    assert not demo.model.training


def test_what_cannot_train_is_refused(demo: LoadedModel) -> None:
    given: dict[str, Any] = {"batch": 1, "length": 8}
    with pytest.raises(UnsupportedCall, match="PyTorch has no adamw_8bit"):
        training_peak(demo, backend="sdpa_flash", optimizer="adamw_8bit", **given)
    with pytest.raises(UnsupportedCall, match="cuda only"):
        training_peak(demo, backend="sdpa_cudnn", optimizer="sgd", **given)
