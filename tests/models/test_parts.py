from collections import Counter
from collections.abc import Callable

import pytest
from torch import nn

from attnscope.models.loading import LoadedModel
from attnscope.models.parts import parts
from attnscope.models.swapping import swapped
from tests.models.conftest import FAMILIES


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_has_the_attention_that_runs_in_it(
    tiny_family: Callable[[str], LoadedModel], family: str
) -> None:
    loaded = tiny_family(family)
    ran: list[str] = []
    with swapped(loaded.model, "eager", lambda call: ran.append(call.name)):
        loaded.model(**loaded.tokenizer("abcdef", return_tensors="pt"))
    found = parts(loaded.model)
    attention = [part for part in found if part.kind == "attention"]
    assert [part.layer for part in attention] == list(range(len(ran)))
    for part, name in zip(attention, ran, strict=True):
        assert name == part.name or name.startswith(f"{part.name}.")
    kinds = Counter((part.layer, part.kind) for part in found)
    for layer in range(len(ran)):
        assert kinds[layer, "layer"] == kinds[layer, "attention"] == 1
        assert kinds[layer, "mlp"] >= 1
    assert kinds[None, "embedding"] == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_layers_parts_hold_all_its_weights_once(
    tiny_family: Callable[[str], LoadedModel], family: str
) -> None:
    found = parts(tiny_family(family).model)

    def weights(module: nn.Module) -> Counter[int]:
        return Counter(id(weight) for weight in module.parameters())

    for whole in (part for part in found if part.kind == "layer"):
        inner = [p for p in found if p.layer == whole.layer and p.kind != "layer"]
        assert sum((weights(part.module) for part in inner), Counter()) == weights(whole.module)
        assert {part.name.rpartition(".")[0] for part in inner} == {whole.name}
