"""`generate` under backends of ours: the same 64 tokens as under eager, whatever the cache."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from attnscope.kernels.backends.tiled import Tiled
from attnscope.kernels.errors import UnsupportedCall
from attnscope.models.swapping import LayerCall, swapped
from tests.models.conftest import WINDOW
from tests.models.greedy import CACHES, FAMILIES, LENGTHS, Cache, Greedy, greedy

REFUSED = {
    ("gemma2", "sdpa_math"): "no softcap, and the call's is 2",
    ("gemma2", "sdpa_flash"): "no softcap, and the call's is 2",
    ("gpt_oss", "sdpa_math"): "no log-sum-exp for the sinks to join",
    ("deepseek_v3", "sdpa_flash"): "values as wide as keys, and they are 12 and 16 wide",
}

Model = Callable[[str], Greedy]

each_family = pytest.mark.parametrize("family", FAMILIES)
each_cache = pytest.mark.parametrize("cache", CACHES)


@pytest.fixture(scope="module")
def model() -> Model:
    """Makes the tiny model of a family once."""
    return functools.cache(greedy)


@each_family
@pytest.mark.parametrize(
    ("backend", "cache"),
    [
        ("tiled", "dynamic"),
        ("tiled", "static"),
        ("sdpa_math", "dynamic"),
        ("sdpa_flash", "static"),
    ],
)
def test_the_tokens_are_those_of_eager(
    model: Model, family: str, cache: Cache, backend: str
) -> None:
    refused = REFUSED.get((family, backend))
    if refused is None:
        model(family).assert_same_tokens(cache, backend)
        return
    with pytest.raises(UnsupportedCall, match=refused):
        model(family).generate(cache, backend)


@each_family
def test_attention_that_is_wrong_by_one_key_says_other_tokens(
    model: Model, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What passes above would not pass by being insensitive to attention."""
    right = Tiled._attend

    def late(self: Tiled, q: Any, k: Any, v: Any, call: Any, **others: Any) -> Any:
        if call.query_length == 1 and call.query_offset:
            k, v = k.roll(1, 2), v.roll(1, 2)
            k[:, :, 0], v[:, :, 0] = k[:, :, 1], v[:, :, 1]
        return right(self, q, k, v, call, **others)

    monkeypatch.setattr(Tiled, "_attend", late)
    wrong = model(family).generate("dynamic", "tiled", tokens=24)
    assert not torch.equal(wrong.tokens_BT, model(family).eager("dynamic").tokens_BT[:, :24])


@each_cache
def test_every_step_is_recorded_with_its_query_and_its_keys(model: Model, cache: Cache) -> None:
    """Mistral: its window is shorter than the prompt, and its cache holds no more than that."""
    seen: list[LayerCall] = []
    model("mistral").generate(cache, "tiled", recorder=seen.append, tokens=5)
    assert [call.layer for call in seen] == [0, 1] * 5
    prompt, *steps = seen[::2]
    assert prompt.q_BHQD.shape[2] == prompt.k_BGKD.shape[2] == max(LENGTHS)
    assert {call.q_BHQD.shape[2] for call in steps} == {1}
    assert {call.k_BGKD.shape[2] for call in steps} == {WINDOW}
    assert {call.mask.query_offset for call in steps} == {WINDOW - 1}


@each_cache
def test_the_keys_of_a_step_are_those_of_the_step_before_and_one_more(
    model: Model, cache: Cache
) -> None:
    seen: list[LayerCall] = []
    keys = []

    def record(call: LayerCall) -> None:
        seen.append(call)
        keys.append(call.k_BGKD[:, :, : call.mask.query_offset + call.q_BHQD.shape[2]].clone())

    model("llama").generate(cache, "tiled", recorder=record, tokens=4)
    steps = seen[2::2]
    assert [call.mask.query_offset for call in steps] == [12, 13, 14]
    held = [call.k_BGKD.shape[2] for call in steps]
    assert held == [13, 14, 15] if cache == "dynamic" else len(set(held)) == 1
    for before, after in zip(keys[::2], keys[2::2], strict=False):
        assert after.shape[2] == before.shape[2] + 1
        assert torch.equal(after[:, :, :-1], before)
    assert all(call.lse_BHQ is not None and call.lse_BHQ.shape == (2, 4, 1) for call in steps)


def test_calls_are_counted_anew_at_every_step(model: Model) -> None:
    counted = []
    llama = model("llama")
    with swapped(llama.model, "tiled", lambda _: counted.append(swap.calls)) as swap:
        llama.generate("dynamic", tokens=3)
    assert counted == [1, 2] * 3


def test_an_encoder_that_runs_by_itself_is_counted_from_its_first_layer(model: Model) -> None:
    seen: list[tuple[int, str]] = []
    bart = model("bart")
    with swapped(bart.model, "tiled", lambda call: seen.append((call.layer, call.name))):
        bart.generate("dynamic", tokens=1)
        bart.generate("dynamic", tokens=1)
    once = [
        (0, "model.encoder.layers.0.self_attn"),
        (0, "model.decoder.layers.0.self_attn"),
        (1, "model.decoder.layers.0.encoder_attn"),
    ]
    assert seen == once * 2
