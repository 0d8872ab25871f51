"""Greedy continuation of one prompt, token by token, under whatever attention is swapped in.

n tokens of the prompt.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch

from attnscope.models.loading import LoadedModel
from attnscope.models.pass_inputs import growing_cache


def continued(
    model: LoadedModel,
    ids_n: Sequence[int],
    new_tokens: int,
    *,
    on_token: Callable[[int], None] | None = None,
) -> tuple[int, ...]:
    """The likeliest next token, again and again, to the model's end mark at most.

    The cache keeps every key, whatever the model's windows: a pattern counts positions from the first
    token. Nothing of the model's generation settings is applied. The caller holds the model's lock.

    Args:
        model: A decoder.
        ids_n: The prompt.
        new_tokens: How many at most.
        on_token: Told how many there are after each; it may raise to stop.

    Returns:
        The ids of the new tokens, the end mark included.
    """
    accepted = inspect.signature(model.model.forward).parameters
    ends = end_marks(model)
    state: dict[str, Any] = {}
    if "past_key_values" in accepted and "use_cache" in accepted:
        state = {"past_key_values": growing_cache(model.model.config), "use_cache": True}
    if "logits_to_keep" in accepted:
        state["logits_to_keep"] = 1
    ids, given = list(ids_n), list(ids_n)
    with torch.no_grad():
        while len(ids) - len(ids_n) < new_tokens:
            logits = model.model(
                input_ids=torch.tensor([given], device=model.device), **state
            ).logits
            ids.append(int(logits[0, -1].argmax()))
            if on_token is not None:
                on_token(len(ids) - len(ids_n))
            if ids[-1] in ends:
                break
            given = ids[-1:] if "past_key_values" in state else ids
    return tuple(ids[len(ids_n) :])


def end_marks(model: LoadedModel) -> set[int]:
    """The tokens after which a model says nothing more, as its own settings or its tokenizer name them."""
    said = getattr(getattr(model.model, "generation_config", None), "eos_token_id", None)
    said = model.tokenizer.eos_token_id if said is None else said
    return {one for one in (said if isinstance(said, list) else [said]) if isinstance(one, int)}
