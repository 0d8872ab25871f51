"""Patterns that an adviser lays over a model: their share of pairs, their cache and their reach, by brute force."""

import pytest
import torch

from attnscope.kernels.patterns.catalogue import FAMILIES, pattern
from attnscope.kernels.patterns.composed import compose
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.models.shape import ModelShape, shape_of
from attnscope.profiling.candidates import over
from attnscope.profiling.laid_patterns import (
    KEYS,
    REACH_TOKENS,
    cached_keys,
    hides,
    laid_patterns,
    looks_back_only,
    reach,
)

CAUSAL, FULL = pattern("causal"), pattern("full")
NEVER_LAID = {"full", "causal", "axial", "rule", "vertical_slash", "block_list", "matrix", "packed"}


def laid(keys: int, length: int, *, is_causal: bool = True) -> list[Pattern]:
    return list(laid_patterns(keys, length=length, is_causal=is_causal, sinks=True))


def test_every_family_that_numbers_make_is_laid() -> None:
    found = {each.key for causal in (True, False) for each in laid(64, 4096, is_causal=causal)}
    assert found == set(FAMILIES) - NEVER_LAID


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("keys", KEYS[:3])
def test_each_keeps_about_as_many_keys(keys: int, is_causal: bool) -> None:
    length = 32 * keys
    rule = CAUSAL if is_causal else FULL
    for each in laid(keys, length, is_causal=is_causal):
        kept = compose(each, rule).kept_pairs(length, length) / length
        assert 0.75 * keys <= kept <= 1.3 * keys, each.title


def test_a_text_that_is_no_longer_than_the_keys_is_given_windows_alone() -> None:
    assert {each.key for each in laid(64, 64)} == {"sliding_window", "sinks_window", "chunked"}


def test_a_cache_need_hold_the_keys_that_any_later_query_sees() -> None:
    for each in laid(64, 1024):
        rule = compose(each, CAUSAL)
        query, key = torch.arange(1024)[:, None], torch.arange(1024)[None]
        seen = rule.visible(query, key)
        last = 1023
        oldest = int(seen[last].nonzero().min())
        held = cached_keys(each)
        if held is None:
            assert oldest < 1024 // 2, each.title
        elif each.key != "sinks_window":
            assert last - oldest + 1 <= held, each.title


def tokens_heard(rule: Pattern, layers: int) -> int:
    """By a product of matrices a layer; every token hears of itself."""
    at = torch.arange(REACH_TOKENS)
    sees = rule.visible(at[:, None], at[None]).float()
    heard = torch.zeros(1, REACH_TOKENS)
    heard[0, -1] = 1
    for _ in range(layers):
        heard = ((heard + heard @ sees) > 0).float()
    return int(heard.sum())


@pytest.mark.parametrize("key", ["sliding_window", "chunked", "bigbird", "strided", "longformer"])
def test_reach_is_what_passes_from_layer_to_layer(key: str) -> None:
    shape = shape_of("demo")
    each = next(one for one in laid(64, 4096) if one.key == key)
    rule = compose(each, CAUSAL)
    assert reach(over(shape, each)) == tokens_heard(rule, len(shape.layers))


def test_reach_of_a_window_and_of_chunks_in_closed_form() -> None:
    shape: ModelShape = shape_of("demo")
    layers = len(shape.layers)
    assert reach(over(shape, pattern("sliding_window", window=64))) == layers * 63 + 1
    assert reach(over(shape, pattern("chunked", chunk=128))) == 128
    assert reach(shape) == REACH_TOKENS


def test_what_is_wider_than_the_text_hides_nothing() -> None:
    assert not hides(pattern("sliding_window", window=64), CAUSAL, 64)
    assert hides(pattern("sliding_window", window=64), CAUSAL, 65)
    assert not hides(pattern("chunked", chunk=64), CAUSAL, 64)
    assert hides(pattern("strided", stride=2), CAUSAL, 64)


def test_a_causal_rule_looks_back_only() -> None:
    assert looks_back_only(CAUSAL)
    assert looks_back_only(pattern("chunked", chunk=8))
    assert not looks_back_only(FULL)
    assert not looks_back_only(pattern("local", window=8))
