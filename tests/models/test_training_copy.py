"""Training a copy: whose attention it runs, and the model that it leaves alone."""

import pytest
import torch

from attnscope.models.loading import LoadedModel, load
from attnscope.models.swapping import NAME
from attnscope.models.training_copy import training_copy

IDS = torch.tensor([[5, 6, 7, 8]])


@pytest.fixture(scope="module")
def demo() -> LoadedModel:
    return load("demo", device="cpu")


@pytest.mark.parametrize(
    ("attention", "told"), [("sdpa_flash", NAME), ("transformers_eager", "eager")]
)
def test_a_copy_takes_steps_and_the_model_stays(
    demo: LoadedModel, attention: str, told: str
) -> None:
    before = [weight.detach().clone() for weight in demo.model.parameters()]
    implementation = demo.model.config._attn_implementation
    with torch.no_grad(), training_copy(demo, attention, "adamw") as training:
        assert training.model is not demo.model
        assert training.model.config._attn_implementation == told
        training.differentiate(IDS)
        assert all(weight.grad is not None for weight in training.model.parameters())
        training.update()
    assert demo.model.config._attn_implementation == implementation
    assert not demo.model.training
    assert all(weight.grad is None for weight in demo.model.parameters())
    assert all(map(torch.equal, before, demo.model.parameters()))
