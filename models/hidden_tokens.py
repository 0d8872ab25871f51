"""What an encoder guesses of the tokens of a prompt when they are hidden from it, each once.

As masked language models are trained (arXiv 1810.04805 §3.1), but every seventh token at a time, not a random 15 %:
so each is guessed once, from nearly all the others, and nothing is drawn.

R runs of one prompt side by side, n tokens of it, m guessed, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from attnscope.kernels.errors import ModelUnsupported, PromptRefused
from attnscope.models.loading import LoadedModel

STRIDE = 7


def hidden_positions(model: LoadedModel, ids_n: Sequence[int]) -> tuple[int, ...]:
    """Where a prompt has tokens that can be guessed: all but the tokenizer's own marks.

    Raises:
        ModelUnsupported: The tokenizer has no mask token.
        PromptRefused: The prompt holds nothing but marks.
    """
    if model.tokenizer.mask_token_id is None:
        raise ModelUnsupported(
            f"The tokenizer of {model.title} has no mask token, so no token can be hidden for it to guess.",
            "Read the mass and the error of each head instead.",
        )
    marks = set(model.tokenizer.all_special_ids)
    found = tuple(at for at, one in enumerate(ids_n) if one not in marks)
    if not found:
        raise PromptRefused("The prompt has no token to guess.", "Write a few words.")
    return found


def passes_of(positions_m: Sequence[int]) -> int:
    """How many passes guess that many tokens."""
    return min(STRIDE, len(positions_m))


def hidden_logits(
    model: LoadedModel, ids_n: Sequence[int], positions_m: Sequence[int], runs: int = 1
) -> Tensor:
    """The logits of each of these tokens while it is hidden, `[R, m, V]`; under whatever attention is swapped in.

    The caller holds the model's lock, and `torch.no_grad`.
    """
    ids_1n = torch.tensor([list(ids_n)], device=model.device)
    position_m = torch.tensor(positions_m, device=model.device)
    parts = []
    for first in range(passes_of(positions_m)):
        at = position_m[first::STRIDE]
        asked_1n = ids_1n.index_fill(1, at, int(model.tokenizer.mask_token_id))  # pyright: ignore[reportArgumentType]
        parts.append(model.model(input_ids=asked_1n.expand(runs, -1)).logits[:, at])
    place_m = torch.cat([torch.arange(len(position_m))[n::STRIDE] for n in range(len(parts))])
    return torch.cat(parts, 1)[:, place_m.argsort().to(model.device)]
