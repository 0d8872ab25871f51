"""Which module of a model is what: its layers, and in them attention, feed-forward and norms."""

from dataclasses import dataclass
from typing import Literal

from torch import nn
from transformers import PreTrainedModel

Kind = Literal["embedding", "layer", "attention", "mlp", "norm", "head"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """One module of a model and what it does there.

    Attributes:
        name: As in the model, `model.layers.3.self_attn`.
        kind: "layer" is a whole layer, and holds the others but "embedding" and "head".
        layer: Which one, from 0; None outside the layers.
        module: The module itself.
    """

    name: str
    kind: Kind
    layer: int | None
    module: nn.Module


def parts(model: PreTrainedModel) -> tuple[Part, ...]:
    """The parts of a model, in its own order; none of a kind that it does not have.

    A layer's children are told apart by their classes' names, which transformers keeps to: what is
    called a norm, what is called attention, and the rest, which is the feed-forward network.
    """
    found = [_single(model, "embedding", model.get_input_embeddings())]
    for number, (name, layer) in enumerate(_layers(model)):
        found.append(Part(name=name, kind="layer", layer=number, module=layer))
        found += [
            Part(name=f"{name}.{child}", kind=_kind(module), layer=number, module=module)
            for child, module in layer.named_children()
            if any(True for _ in module.parameters())
        ]
    found.append(_single(model, "head", model.get_output_embeddings()))
    return tuple(part for part in found if part is not None)


def _single(model: PreTrainedModel, kind: Kind, module: object) -> Part | None:
    names = {id(each): name for name, each in model.named_modules()}
    if not isinstance(module, nn.Module) or id(module) not in names:
        return None
    return Part(name=names[id(module)], kind=kind, layer=None, module=module)


def _layers(model: PreTrainedModel) -> list[tuple[str, nn.Module]]:
    """The layers of the stack: the list of as many modules as the config has layers."""
    count = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return [(f"{name}.{number}", layer) for number, layer in enumerate(module)]
    return []


def _kind(module: nn.Module) -> Kind:
    called = type(module).__name__.lower()
    if "norm" in called:
        return "norm"
    return "attention" if "attention" in called else "mlp"
