"""transformers' own eager attention, with masks written out pair by pair: an oracle for patterns.

H query heads, n tokens.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from attnscope.models.swapping import LayerCall, swapped

Rule = Callable[[int, int], bool]


def looped(rules: Sequence[Rule], length: int) -> Tensor:
    """Which pairs each head sees, by a loop: bool `[1, H or 1, n, n]`."""
    return torch.tensor(
        [[[[rule(i, j) for j in range(length)] for i in range(length)] for rule in rules]]
    )


@contextmanager
def masked(
    model: PreTrainedModel, rules: Mapping[int, Sequence[Rule]], length: int
) -> Iterator[None]:
    """The model's eager attention with the rules of each layer on top of its own, for one prompt."""
    hooks = [
        layer.register_forward_pre_hook(_restricting(looped(rules[at], length)), with_kwargs=True)
        for at, layer in enumerate(attentions(model))
        if at in rules
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def attentions(model: PreTrainedModel) -> list[nn.Module]:
    """The attention modules in the order in which they run."""
    calls: list[LayerCall] = []
    with torch.no_grad(), swapped(model, "eager", calls.append):
        model(input_ids=torch.tensor([[5, 6]]))
    return [model.get_submodule(call.name) for call in calls]


def _restricting(seen_1Hnn: Tensor) -> Callable[[nn.Module, Any, dict[str, Any]], Any]:
    def restrict(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        own = kwargs["attention_mask"]
        own = torch.zeros(seen_1Hnn.shape) if own is None else own
        both = own.masked_fill(~seen_1Hnn, torch.finfo(own.dtype).min)
        return args, {**kwargs, "attention_mask": both}

    return restrict
