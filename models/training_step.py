"""One step of training as the calculator counts it: the loss, its gradients, and PyTorch's own optimisers.

Weights of 16 bits have float32 masters, which the optimiser steps (arXiv 1710.03740). Each parameter is
stepped by itself, so that only one at a time has a wide gradient and temporaries.

B batch, Q positions.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from attnscope.kernels.errors import UnsupportedCall

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": partial(torch.optim.SGD, foreach=False),
    "adam": partial(torch.optim.Adam, foreach=False),
    "adamw": partial(torch.optim.AdamW, foreach=False),
    "adafactor": partial(torch.optim.Adafactor, foreach=False),
}
"""Those that PyTorch has."""


class TrainingStep:
    """A model that takes steps; its masters and the optimiser's states are there from the start.

    Attributes:
        model: The model.

    Args:
        model: Is put into training mode, and left there.
        optimizer: One of `OPTIMIZERS`.
        checkpointing: Recompute each layer in the backward pass.

    Raises:
        UnsupportedCall: PyTorch has no such optimiser.
    """

    def __init__(
        self, model: PreTrainedModel, optimizer: str, *, checkpointing: bool = False
    ) -> None:
        if optimizer not in OPTIMIZERS:
            raise UnsupportedCall(
                f"PyTorch has no {optimizer}, so a step with it is neither traced nor run.",
                f"Choose {', '.join(OPTIMIZERS)}.",
            )
        self.model = model.train()
        if checkpointing:
            recompute(model)
        # A rate of 0: what is trained here is measured, not wanted.
        make = partial(OPTIMIZERS[optimizer], lr=0.0)
        self._steps = [
            (weight, master, make([master]))
            for weight in model.parameters()
            if weight.requires_grad
            for master in (_master(weight),)
        ]
        for _, master, stepper in self._steps:
            master.grad = torch.zeros_like(master)
            stepper.step()
            master.grad = None

    def kept(self) -> list[Tensor]:
        """Master weights and the optimiser's states."""
        masters = [master for weight, master, _ in self._steps if master is not weight]
        states = [
            value
            for _, master, stepper in self._steps
            for value in stepper.state[master].values()
            if isinstance(value, Tensor)
        ]
        return masters + states

    def differentiate(self, ids_BQ: Tensor) -> None:
        """Run forward and backward: every parameter that took part has its gradient then."""
        loss_of(self.model, training_inputs(self.model, ids_BQ)).backward()

    def update(self) -> None:
        """Step every parameter that has a gradient, and let go of the gradients."""
        for weight, master, stepper in self._steps:
            if weight.grad is None:
                continue
            if master is weight:
                stepper.step()
                continue
            master.grad = weight.grad.to(master.dtype)
            stepper.step()
            master.grad = None
            with torch.no_grad():
                weight.copy_(master)
        for weight, _, _ in self._steps:
            weight.grad = None


def training_inputs(model: PreTrainedModel, ids_BQ: Tensor) -> dict[str, Any]:
    """Tokens, which are the labels too where the model takes some."""
    accepted = inspect.signature(model.forward).parameters
    inputs: dict[str, Any] = {"input_ids": ids_BQ}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids_BQ
    return {**inputs, **({"labels": ids_BQ} if "labels" in accepted else {})}


def loss_of(model: PreTrainedModel, inputs: dict[str, Any]) -> Tensor:
    """The loss alone: a training loop lets go of the logits before the backward pass."""
    outputs = model(**inputs)
    return outputs.loss if "labels" in inputs else outputs[0].sum()


def recompute(model: PreTrainedModel) -> None:
    """Each layer keeps its input only, and is run again in the backward pass."""
    model.activation_checkpointing_enable({"use_reentrant": False})


def _master(weight: nn.Parameter) -> nn.Parameter:
    return weight if weight.itemsize >= 4 else nn.Parameter(weight.detach().float())
