"""The peak memory of a real step of training, on a copy of a model.

B batch, Q positions.
"""

from dataclasses import dataclass

import torch

from attnscope.models.loading import LoadedModel
from attnscope.models.training_copy import training_copy
from attnscope.profiling.memory import peak_memory

_VOCABULARY = 256
"""Tokens are drawn below: every tokenizer has as many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPeak:
    """What one step held at its worst moment, in bytes.

    Attributes:
        weights: Parameters and buffers.
        kept: Master weights and the optimiser's states.
        step: All else: gradients, activations, tokens. By the allocator on CUDA; on a CPU every allocation counted.
    """

    weights: int
    kept: int
    step: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.kept + self.step


def training_peak(
    model: LoadedModel,
    *,
    backend: str,
    batch: int,
    length: int,
    optimizer: str,
    checkpointing: bool = False,
    seed: int = 0,
) -> TrainingPeak:
    """Takes two steps on random tokens, and counts what the second takes.

    Args:
        model: Is copied, and stays as it is.
        backend: One with a backward pass, `transformers_eager` or `transformers_sdpa`.
        batch: Sequences.
        length: Tokens a sequence.
        optimizer: One of `training_step.OPTIMIZERS`.
        checkpointing: Recompute each layer in the backward pass.
        seed: Of the tokens.

    Raises:
        AttnscopeError: The backend refuses a call of the model, or PyTorch has no such optimiser.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn_BQ = torch.randint(_VOCABULARY, (batch, length), generator=generator)
    ids_BQ = drawn_BQ.to(model.device)
    with training_copy(model, backend, optimizer, checkpointing=checkpointing) as training:

        def one() -> None:
            training.differentiate(ids_BQ)
            training.update()

        one()
        transient = peak_memory(one, model.device).transient.value
        assert transient is not None
        return TrainingPeak(
            weights=model.nbytes,
            kept=sum(tensor.nbytes for tensor in training.kept()),
            step=int(transient) + ids_BQ.nbytes,
        )
