"""A step of training: what it keeps, and that its masters are stepped, not only held."""

from typing import Any

import pytest
import torch
import transformers as hf

from attnscope.kernels.errors import UnsupportedCall
from attnscope.models.training_step import TrainingStep
from tests.models.conftest import DECODERS, tiny


def _model(dtype: torch.dtype) -> hf.PreTrainedModel:
    model: Any = tiny(DECODERS["llama"](), hf.AutoModelForCausalLM)
    return model.to(dtype)


@pytest.mark.parametrize(
    ("optimizer", "numbers"), [("sgd", 0), ("adam", 2), ("adamw", 2), ("adafactor", None)]
)
def test_states_and_masters_are_there_from_the_start(optimizer: str, numbers: int | None) -> None:
    model = _model(torch.bfloat16)
    parameters = sum(weight.numel() for weight in model.parameters())
    kept = TrainingStep(model, optimizer).kept()
    wide = sum(tensor.nbytes for tensor in kept if tensor.ndim)
    if numbers is None:
        assert 4 * parameters < wide < 4.5 * parameters
    else:
        assert wide == 4 * parameters * (1 + numbers)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_come_and_go(dtype: torch.dtype) -> None:
    model = _model(dtype)
    training = TrainingStep(model, "adamw")
    training.differentiate(torch.tensor([[5, 6, 7, 8]]))
    grads = [weight.grad for weight in model.parameters()]
    assert all(grad is not None and grad.dtype == dtype and grad.any() for grad in grads)
    before = [tensor.clone() for tensor in training.kept()]
    training.update()
    assert all(weight.grad is None for weight in model.parameters())
    changed = [not torch.equal(*pair) for pair in zip(before, training.kept(), strict=True)]
    assert any(changed), "the states have seen a gradient"


def test_recomputing_gives_the_same_gradients() -> None:
    ids, found = torch.tensor([[5, 6, 7, 8]]), []
    for checkpointing in (False, True):
        model = _model(torch.float32)
        TrainingStep(model, "sgd", checkpointing=checkpointing).differentiate(ids)
        found.append([weight.grad for weight in model.parameters()])
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(again, plain)


def test_an_unknown_optimizer_is_refused_with_those_there_are() -> None:
    with pytest.raises(UnsupportedCall, match=r"Choose sgd, adam, adamw, adafactor\."):
        TrainingStep(_model(torch.float32), "adamw_8bit")
