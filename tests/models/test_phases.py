"""Which calls are decode: said of calls by themselves, and of those that models make."""

from collections.abc import Callable

import pytest
import torch

from attnscope.kernels.errors import UnknownBackend
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.models.loading import LoadedModel
from attnscope.models.masks import Mask
from attnscope.models.phases import Phases, is_decode
from attnscope.models.swapping import LayerCall, swapped
from tests.models.greedy import greedy

CAUSAL, FULL = pattern("causal"), pattern("full")
WINDOW = pattern("sliding_window", window=4)
SPLIT = Phases(prefill="eager", decode="tiled")

Family = Callable[[str], LoadedModel]


@pytest.mark.parametrize(
    ("queries", "keys", "offset", "rule", "expected"),
    [
        pytest.param(6, 6, 0, CAUSAL, False, id="a prompt"),
        pytest.param(1, 1, 0, CAUSAL, False, id="a prompt of one token"),
        pytest.param(6, 64, 0, CAUSAL, False, id="a prompt into a static cache"),
        pytest.param(1, 64, 0, CAUSAL, False, id="one token into a static cache"),
        pytest.param(1, 7, 6, CAUSAL, True, id="a step"),
        pytest.param(1, 64, 6, CAUSAL, True, id="a step in a static cache"),
        pytest.param(1, 4, 3, WINDOW, True, id="a step in a sliding cache"),
        pytest.param(8, 20, 12, CAUSAL, True, id="a few tokens on trial"),
        pytest.param(9, 21, 12, CAUSAL, False, id="more than a few"),
        pytest.param(1, 1, 0, FULL, False, id="one token that sees itself"),
        pytest.param(6, 6, 0, FULL, False, id="an encoder's prompt"),
        pytest.param(1, 7, 6, FULL, True, id="a step without a mask"),
        pytest.param(1, 20, 0, FULL, True, id="a step across to an encoder's keys"),
        pytest.param(12, 20, 0, FULL, False, id="a prompt across to an encoder's keys"),
    ],
)
def test_what_decodes(queries: int, keys: int, offset: int, rule: Pattern, expected: bool) -> None:
    mask = Mask(patterns=(rule,), query_offset=offset, visible_keys_BK=None)
    assert is_decode(queries, keys, mask) is expected


def _backends(family: str, prompt: int, cache: str = "dynamic", **options: object) -> list[str]:
    """The backend of every call of the first layer, of a prompt of so many tokens and two steps."""
    model = greedy(family)
    model.inputs = {name: ids_BN[1:, -prompt:] for name, ids_BN in model.inputs.items()}
    seen: list[LayerCall] = []
    model.generate(cache, SPLIT, recorder=seen.append, tokens=3, **options)  # pyright: ignore[reportArgumentType]
    return [call.backend for call in seen if call.layer == 0]


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("prompt", [1, 2, 12])
@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_a_prompt_is_prefilled_and_each_token_after_it_decoded(
    family: str, prompt: int, cache: str
) -> None:
    assert _backends(family, prompt, cache) == ["eager", "tiled", "tiled"]


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        pytest.param(10, ["eager", "tiled"], id="a last piece of two tokens"),
        pytest.param(4, ["eager", "tiled", "tiled"], id="pieces as small as decodes"),
    ],
)
def test_a_prompt_in_pieces(chunk: int, expected: list[str]) -> None:
    found = _backends("llama", 12, prefill_chunk_size=chunk, cache_implementation="dynamic")
    assert found == [*expected, "tiled", "tiled"]


def test_an_encoder_prefills_and_every_look_at_it_decodes() -> None:
    seen: list[tuple[str, str]] = []

    def record(call: LayerCall) -> None:
        seen.append((call.name.split(".", 1)[1], call.backend))

    greedy("bart").generate("dynamic", SPLIT, recorder=record, tokens=2)
    own, across = "decoder.layers.0.self_attn", "decoder.layers.0.encoder_attn"
    first = [("encoder.layers.0.self_attn", "eager"), (own, "eager"), (across, "tiled")]
    assert seen == [*first, (own, "tiled"), (across, "tiled")]


def test_phases_by_layer(tiny_family: Family) -> None:
    model = tiny_family("llama").model
    seen: list[str] = []
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad(), swapped(model, {1: SPLIT}, lambda call: seen.append(call.backend)):
        cache = model(input_ids=ids, use_cache=True).past_key_values
        model(input_ids=ids[:, :1], past_key_values=cache)
    assert seen == ["eager", "eager", "eager", "tiled"]


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_both_names_are_looked_up_first(tiny_family: Family, phase: str) -> None:
    names = {"prefill": "eager", "decode": "eager", phase: "abacus"}
    with (
        pytest.raises(UnknownBackend, match="abacus"),
        swapped(tiny_family("llama").model, {0: Phases(**names)}),
    ):
        pytest.fail("there is no such backend")
