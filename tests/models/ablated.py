"""transformers' own eager attention, with heads changed where the output projection reads them: an oracle for ablation.

H query heads, D value dim, n tokens.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tests.models.masked import attentions

PROJECTIONS = {
    "gpt2": "c_proj",
    "gpt_neox": "dense",
    "phi": "dense",
    "opt": "out_proj",
    "bert": "output.dense",
    "distilbert": "out_lin",
    "modernbert": "Wo",
}
"""By model type the module that mixes the heads, in the attention module or, of BERT, beside it; else `o_proj`."""


def projections(model: PreTrainedModel) -> list[nn.Module]:
    """The output projection of each layer."""
    kind = str(model.config.model_type)
    names = {module: name for name, module in model.named_modules()}
    found = []
    for attention in attentions(model):
        name = names[attention]
        place = name.rpartition(".")[0] if kind == "bert" else name
        found.append(model.get_submodule(f"{place}.{PROJECTIONS.get(kind, 'o_proj')}"))
    return found


@contextmanager
def changed(
    model: PreTrainedModel, outputs: Mapping[tuple[int, int], Tensor | float], heads: int
) -> Iterator[None]:
    """The model with the output of some heads, by layer and head, put to a number or to a vector `[D]`."""

    def change(layer: int) -> Any:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            mixed = args[0].clone()
            width = mixed.shape[-1] // heads
            for (at, head), output in outputs.items():
                if at == layer:
                    mixed[..., head * width : (head + 1) * width] = output
            return (mixed, *args[1:])

        return hook

    hooks = [
        module.register_forward_pre_hook(change(layer))
        for layer, module in enumerate(projections(model))
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def means(model: PreTrainedModel, ids: list[int], heads: int) -> dict[tuple[int, int], Tensor]:
    """The mean over a prompt's positions of what each head gives the output projection, `[D]`."""
    found: dict[tuple[int, int], Tensor] = {}

    def note(layer: int) -> Any:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            per_head = args[0].reshape(len(ids), heads, -1).mean(0)
            found.update({(layer, head): per_head[head] for head in range(heads)})

        return hook

    hooks = [
        module.register_forward_pre_hook(note(layer))
        for layer, module in enumerate(projections(model))
    ]
    with torch.no_grad():
        model(input_ids=torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    return found
