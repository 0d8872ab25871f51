"""What cannot be generated, told before anything runs."""

import inspect

from attnscope.kernels.errors import CaptureTooLarge, InvalidCall, ModelUnsupported, PromptRefused
from attnscope.models.capture import default_budget, plan
from attnscope.models.loading import LoadedModel
from attnscope.models.memory import in_words
from attnscope.models.prompting import Batch


def check_continues(model: LoadedModel) -> None:
    """Raises ModelUnsupported where a model cannot generate, with the reason."""
    if model.kind == "encoder" or not model.has_head:
        why = "fills in hidden tokens" if model.has_head else "has no head that predicts tokens"
        raise ModelUnsupported(
            f"{model.title} {why}: it does not continue a text.",
            "Choose a decoder or an encoder-decoder; Inspect shows this one.",
        )
    if "past_key_values" not in inspect.signature(model.model.forward).parameters:
        raise ModelUnsupported(
            f"{model.title} keeps no cache, so it has no decode phase.", "Choose another model."
        )


def check_length(model: LoadedModel, batch: Batch, new_tokens: int) -> None:
    """Raises InvalidCall of no tokens or several prompts, PromptRefused where there are no positions for so many."""
    if new_tokens < 1:
        raise InvalidCall(f"new_tokens must be at least 1, got {new_tokens}.")
    if batch.size != 1:
        raise InvalidCall(f"One prompt is continued at a time, got {batch.size}.")
    limit, length = model.max_length, len(batch.ids[0])
    if limit is not None and length + new_tokens - 1 > limit:
        raise PromptRefused(
            f"{model.title} reads {limit:,} tokens: {length:,} of the prompt leave "
            f"{limit - length + 1:,} to be said, and {new_tokens:,} were asked for.",
            f"Ask for at most {limit - length + 1:,}, or shorten the prompt.",
        )


def check_budget(model: LoadedModel, batch: Batch, new_tokens: int, asked: int | None) -> None:
    """Raises CaptureTooLarge where what is kept would be over the budget; half of the memory left when None."""
    budget = default_budget(model.device) if asked is None else asked
    source = 0 if batch.source is None else batch.source.length
    length = len(batch.ids[0])

    def needed(tokens: int) -> int:
        return plan(model, [length + tokens - 1], source_length=source).total_bytes

    if needed(new_tokens) <= budget:
        return
    each = needed(2) - needed(1)
    fitting = (budget - needed(1)) // each + 1
    remedy = f"Generate at most {fitting:,} tokens, or use" if fitting > 0 else "Use"
    raise CaptureTooLarge(
        f"Keeping what {new_tokens:,} tokens look at, after {length:,} of a prompt, holds "
        f"{in_words(needed(new_tokens))}, over the budget of {in_words(budget)}.",
        f"{remedy} a shorter prompt, or a larger budget.",
    )
