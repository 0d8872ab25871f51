"""Models running within patterns, against their own eager attention with the same pairs hidden."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from attnscope.kernels.errors import InvalidCall, UnsupportedCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.models.assignment import Patterns
from attnscope.models.loading import LoadedModel
from attnscope.models.swapping import LayerCall, swapped
from tests.models.masked import Rule, masked

Family = Callable[[str], LoadedModel]
IDS = torch.tensor([[5, 6, 7, 8, 5, 6, 9, 11, 30, 2, 5, 6]])
LENGTH = IDS.shape[1]
WINDOW = pattern("sliding_window", window=3)
SINKS = pattern("sinks_window", window=2, sinks=1)
SLASHES = pattern("vertical_slash", columns=(0, 3), diagonals=(0, 4))
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4}
RULES: dict[object, Rule] = {
    WINDOW: lambda i, j: i - 3 < j <= i,
    SINKS: lambda i, j: i - 2 < j <= i or j < 1,
    SLASHES: lambda i, j: j in (0, 3) or i - j in (0, 4),
    None: lambda i, j: True,
}


def logits(model: Any, **others: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, **others).logits


def expected(model: Any, patterns: dict[int, Any]) -> torch.Tensor:
    rules = {
        layer: [RULES[head] for head in (heads if isinstance(heads, tuple) else (heads,))]
        for layer, heads in patterns.items()
    }
    with masked(model, rules, LENGTH):
        return logits(model)


@pytest.mark.parametrize("backend", ["eager", "tiled"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "gemma2", "gpt_oss", "llama4_text"])
def test_one_pattern_for_all_layers(tiny_family: Family, family: str, backend: str) -> None:
    model = tiny_family(family).model
    for tried in (WINDOW, SINKS, SLASHES):
        with swapped(model, backend, patterns=tried):
            found = logits(model)
        torch.testing.assert_close(found, expected(model, {0: tried, 1: tried}), **CLOSE)
    assert (found - logits(model)).abs().max() > 1e-3


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_oss", "gemma2", "deepseek_v3"])
@pytest.mark.parametrize(
    "patterns",
    [
        {1: SINKS},
        {0: WINDOW, 1: SLASHES},
        {0: (WINDOW, None, WINDOW, SINKS)},
        # Both heads of one kv head, then one of each: keys as they are, and a head's own.
        {0: (WINDOW, WINDOW, SLASHES, SLASHES), 1: (WINDOW, SINKS, WINDOW, SINKS)},
    ],
    ids=["a layer", "a pattern a layer", "heads of a layer", "heads of both"],
)
def test_patterns_by_layer_and_by_head(
    tiny_family: Family, family: str, patterns: dict[int, Any]
) -> None:
    model = tiny_family(family).model
    with swapped(model, "tiled", patterns=patterns):
        found = logits(model)
    torch.testing.assert_close(found, expected(model, patterns), **CLOSE)


def test_an_encoder_sees_what_the_pattern_shows_on_both_sides(tiny_family: Family) -> None:
    model = tiny_family("bert").model
    tried = pattern("local", window=4)
    with swapped(model, "tiled", patterns=tried):
        found = logits(model)
    rules: dict[int, list[Rule]] = {layer: [lambda i, j: abs(i - j) <= 2] for layer in (0, 1)}
    with masked(model, rules, LENGTH):
        torch.testing.assert_close(found, logits(model), **CLOSE)


@pytest.mark.parametrize("patterns", [SINKS, {0: (SINKS, None, WINDOW, None), 1: SLASHES}])
def test_generation_with_a_cache_is_generation_from_scratch(
    tiny_family: Family, patterns: Patterns
) -> None:
    model: Any = tiny_family("llama").model
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "min_new_tokens": 8}
    with swapped(model, "tiled", patterns=patterns):
        cached = model.generate(IDS, use_cache=True, **options)
        scratch = model.generate(IDS, use_cache=False, **options)
    assert torch.equal(cached, scratch)
    assert not torch.equal(cached, model.generate(IDS, **options))


def test_what_the_backend_was_asked_is_told(tiny_family: Family) -> None:
    model = tiny_family("llama").model
    calls: list[LayerCall] = []
    with swapped(model, "tiled", calls.append, patterns={1: (WINDOW, None, None, WINDOW)}):
        logits(model)
    causal = LENGTH * (LENGTH + 1) // 2
    assert [call.kept_pairs for call in calls[0].calls] == [causal]
    assert [(call.query_heads, call.kept_pairs) for call in calls[1].calls] == [
        (2, WINDOW.kept_pairs(LENGTH, LENGTH)),
        (2, causal),
    ]
    assert {call.mask.patterns[0].key for call in calls} == {"causal"}


def test_a_backend_that_refuses_says_why(tiny_family: Family) -> None:
    model = tiny_family("llama").model
    with (
        swapped(model, "performer", patterns=SINKS),
        pytest.raises(UnsupportedCall, match="Performer"),
    ):
        logits(model)


def test_patterns_for_another_number_of_heads_are_refused(tiny_family: Family) -> None:
    model = tiny_family("llama").model
    with (
        swapped(model, "tiled", patterns=(WINDOW, None)),
        pytest.raises(InvalidCall, match="2 heads, and the layer has 4"),
    ):
        logits(model)


def test_positions_that_do_not_count_from_the_first_token_are_refused(tiny_family: Family) -> None:
    model: Any = tiny_family("mistral").model
    mask = torch.ones_like(IDS)
    mask[:, :2] = 0
    with swapped(model, "tiled", patterns=SINKS):
        with pytest.raises(UnsupportedCall, match="begins with padding"):
            logits(model, attention_mask=mask)
        mask = mask.flip(1)
        assert logits(model, attention_mask=mask).isfinite().all()
        # The model's own cache drops what its window of 5 has passed.
        with pytest.raises(UnsupportedCall, match="dropped its first 8 keys"):
            model.generate(IDS, max_new_tokens=3, do_sample=False, pad_token_id=0)
