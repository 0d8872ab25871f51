"""A step of training on a copy of a loaded model, so that the model itself stays as it is."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from attnscope.models.loading import LoadedModel
from attnscope.models.swapping import swapped
from attnscope.models.training_step import TrainingStep

_OWN = "transformers_"


@contextmanager
def training_copy(
    model: LoadedModel, attention: str, optimizer: str, *, checkpointing: bool = False
) -> Iterator[TrainingStep]:
    """A copy that is ready to take steps; gradients are on.

    Args:
        model: Its lock is held while it is copied.
        attention: A backend's name, `transformers_eager` or `transformers_sdpa`.
        optimizer: One of `training_step.OPTIMIZERS`.
        checkpointing: Recompute each layer in the backward pass.

    Raises:
        UnsupportedCall: PyTorch has no such optimiser.
    """
    with model.lock:
        live = copy.deepcopy(model.model)
    own = attention.removeprefix(_OWN)
    with torch.enable_grad():
        if own == attention:
            with swapped(live, attention):
                yield TrainingStep(live, optimizer, checkpointing=checkpointing)
            return
        live.set_attn_implementation(own)
        yield TrainingStep(live, optimizer, checkpointing=checkpointing)
