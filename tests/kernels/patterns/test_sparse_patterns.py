"""What sets the sparse families apart: gaps, draws, matrices, and lengths that no loop could reach."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from attnscope.kernels.call import AttentionCall
from attnscope.kernels.errors import InvalidCall, UnknownPattern
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.patterns.composed import compose
from attnscope.kernels.patterns.pattern import EMPTY, FULL, LEAST_GAP, PARTIAL, Pattern
from tests.kernels.patterns.rules import bigbird_draws
from tests.shapes import Case

LONG = 131_072

WIDE = [
    pattern("strided", stride=100),
    pattern("strided_slide", stride=100),
    pattern("dilated", window=500, dilation=100),
    pattern("block_sparse", block=30, stride=90),
    pattern("axial", height=4, width=110),
    pattern("strided_slide", stride=100, causal=True),
    pattern("bigbird", window=60, global_tokens=5, random_blocks=2, block=20, seed=3),
]


def _at_random(generator: np.random.Generator) -> Pattern:
    def of(least: int, most: int) -> int:
        return int(generator.integers(least, most + 1))

    block = of(1, 6)
    return [
        pattern("dilated", window=of(1, 40), dilation=of(1, 9)),
        pattern("longformer", window=of(1, 20), global_tokens=of(0, 9)),
        pattern(
            "bigbird",
            window=block * of(1, 4),
            global_tokens=of(0, 9),
            random_blocks=of(0, 4),
            block=block,
            seed=of(0, 2**32 - 1),
        ),
        pattern("strided", stride=of(1, 20)),
        pattern("strided_slide", stride=of(1, 20)),
        pattern("block_sparse", block=of(1, 20), stride=of(1, 20)),
        pattern("axial", height=50, width=of(1, 20)),
        pattern("chunked", chunk=of(1, 30)),
        pattern("sinks_window", window=of(1, 20), sinks=of(0, 9)),
    ][of(0, 8)]


@pytest.mark.parametrize("seed", range(60))
def test_at_random_its_forms_agree_with_its_pairs(seed: int) -> None:
    generator = np.random.default_rng(seed)
    found, (queries, keys) = _at_random(generator), generator.integers(1, 48, 2).tolist()
    offset, block = (int(number) for number in generator.integers((0, 1), (48 - queries + 1, 12)))
    second = [pattern("full"), pattern("causal"), _at_random(generator)][seed % 3]
    found = compose(found, second)
    rows = torch.arange(offset, offset + queries)[:, None]
    seen = found.visible(rows, torch.arange(keys)[None]).expand(queries, keys).numpy()
    assert found.kept_pairs(queries, keys, query_offset=offset) == seen.sum()
    mask = found.block_mask(queries, keys, block, query_offset=offset)
    for (row, column), kind in np.ndenumerate(mask):
        cell = seen[row * block :, column * block :][:block, :block]
        assert kind == (FULL if cell.all() else PARTIAL if cell.any() else EMPTY)
    for first in range(0, queries, block):
        some = seen[first : first + block]
        asked = offset + first, offset + first + len(some), keys
        visited, whole = _covered(found.key_spans(*asked), keys), found.full_key_spans(*asked)
        assert not (some.any(0) & ~visited).any()
        assert not (_covered(whole, keys) & ~some.all(0)).any()


def _covered(spans: tuple[tuple[int, int], ...], keys: int) -> np.ndarray:
    covered = np.zeros(keys, bool)
    for first, last in spans:
        covered[first:last] = True
    return covered


@pytest.mark.parametrize("found", WIDE, ids=lambda found: found.title)
@pytest.mark.parametrize("width", [1, 17])
def test_wide_gaps_are_not_visited(found: Pattern, width: int) -> None:
    keys = 400
    for start in (0, 150, 383):
        query_Q1 = torch.arange(start, start + width)[:, None]
        seen = found.visible(query_Q1, torch.arange(keys)[None]).expand(width, keys).numpy()
        spans = found.key_spans(start, start + width, keys)
        visited = _covered(spans, keys)
        assert not (seen.any(0) & ~visited).any()
        # What is visited beside what is seen lies in gaps too small to be left out.
        assert (visited & ~seen.any(0)).sum() <= 0.3 * keys
        assert visited.sum() < keys or seen.any(0).all()
        full = _covered(found.full_key_spans(start, start + width, keys), keys)
        assert not (full & ~seen.all(0)).any()
        if width == 1:
            assert np.array_equal(full, seen[0])


@pytest.mark.parametrize("stride", [2, LEAST_GAP])
def test_small_gaps_are_read(stride: int) -> None:
    assert pattern("strided", stride=stride).key_spans(0, 8, 1000) == (
        (0, 999 // stride * stride + 1),
    )
    assert len(pattern("strided", stride=LEAST_GAP + 1).key_spans(0, 8, 1000)) == 16


def test_bigbird_draws_as_the_rule_says_on_every_machine() -> None:
    names: dict[str, Any] = {
        "window": 12,
        "global_tokens": 8,
        "random_blocks": 3,
        "block": 4,
        "seed": 11,
    }
    found = pattern("bigbird", **names)
    keys = torch.arange(200)
    for row in (2, 3, 6, 7, 20, 49):
        seen = found.visible(torch.tensor([[4 * row + 1]]), keys[None])[0]
        blocks = set((keys[seen] // 4).tolist()) - {0, 1, row - 1, row, row + 1}
        assert blocks == bigbird_draws(row, **names)
        # Blocks 0 and 1 are global, and those from row − 1 on are the window.
        assert len(blocks) == min(3, max(row - 3, 0))
    assert [bigbird_draws(row, **names) for row in (20, 49)] == [{3, 9, 16}, {18, 31, 36}]


def test_bigbirds_draws_are_spread_and_differ_by_seed() -> None:
    names: dict[str, Any] = {
        "window": 1,
        "global_tokens": 0,
        "random_blocks": 2,
        "block": 1,
        "seed": 0,
    }
    query_Q1, key_K = torch.arange(1000, 2000)[:, None], torch.arange(2000)
    seen, other = (
        pattern("bigbird", **{**names, "seed": seed}).visible(query_Q1, key_K) for seed in (0, 1)
    )
    # Its own key, and two drawn.
    assert (seen.sum(1) == 3).all()
    assert (seen & other).sum() < 1000 + 30
    # 2 000 draws, each among the 1 000 to 2 000 keys before: 1.39 a key of the first 1 000.
    by_hundreds = seen[:, :1000].sum(0).unflatten(0, (10, 100)).sum(1)
    assert by_hundreds.min() > 100
    assert by_hundreds.max() < 180


def test_bigbird_refuses_what_it_cannot_draw() -> None:
    names: dict[str, Any] = {
        "window": 12,
        "global_tokens": 8,
        "random_blocks": 3,
        "block": 4,
        "seed": 11,
    }
    for change, said in (
        ({"window": 10}, r"a multiple of block, got window 10 and block 4\. Use window=12"),
        ({"block": 0}, "block must be an integer of at least 1, got 0"),
        ({"global_tokens": -1}, "global_tokens must be .* got -1"),
        ({"random_blocks": -1}, "random_blocks must be .* got -1"),
        ({"seed": -1}, "seed must be .* at least 0, got -1"),
        ({"seed": 2**32}, "seed must be at most 4294967295, got 4294967296"),
    ):
        with pytest.raises(UnknownPattern, match=said):
            pattern("bigbird", **{**names, **change})


def test_a_grid_too_small_for_the_call_is_refused_with_its_size() -> None:
    call = Case(id="grid", queries=33, keys=33, pattern=pattern("axial", height=3, width=11))
    assert call.inputs().call.kept_pairs == 33 * (11 + 3 - 1)
    with pytest.raises(InvalidCall, match=r"height 3 and width 10 has 30 places.*0 to 32\. Choose"):
        replace(call.inputs().call, pattern=pattern("axial", height=3, width=10))
    with pytest.raises(InvalidCall, match="has 30 places"):
        pattern("axial", height=3, width=10, causal=True).block_mask(31, 31, 4)


def test_a_matrix_is_told_by_its_content_and_keeps_its_own_copy() -> None:
    drawn = np.eye(5, 7, dtype=bool)
    found = pattern("matrix", matrix=drawn)
    same = pattern("matrix", matrix=drawn.copy())
    assert found == same
    assert hash(found) == hash(same)
    assert found != pattern("matrix", matrix=drawn.T)
    assert found.title == "matrix (5 by 7)"
    drawn[:] = True
    assert found.kept_pairs(5, 7, query_offset=0) == 5
    both = compose(pattern("causal"), pattern("matrix", matrix=drawn))
    assert both == pattern("matrix", matrix=np.tri(5, 7, dtype=bool))
    assert both.on(torch.device("cpu")) == both
    with pytest.raises(InvalidCall, match="5 queries and 7 keys, and the call has queries 1 to 5"):
        found.kept_pairs(5, 7, query_offset=1)


def test_a_call_outside_the_matrix_is_refused() -> None:
    call = Case(id="matrix").inputs().call
    square = pattern("matrix", matrix=np.ones((33, 33), bool))
    assert isinstance(replace(call, pattern=square), AttentionCall)
    with pytest.raises(InvalidCall, match="speaks of 33 queries and 33 keys"):
        replace(call, pattern=square, key_length=34)


def test_counts_reach_lengths_no_loop_could() -> None:
    n, window = LONG, 4096
    near = n * (window + 1) - (window // 2) * (window // 2 + 1)
    assert pattern("local", window=window).kept_pairs(n, n) == near
    # Rows and columns of g global tokens, less what the window holds of them.
    g, reach = 16, window // 2
    in_window = 2 * sum(i + reach + 1 for i in range(g)) - g * g
    longformer = pattern("longformer", window=window, global_tokens=g)
    assert longformer.kept_pairs(n, n) == near + 2 * g * n - g * g - in_window
    assert pattern("strided", stride=128).kept_pairs(n, n) == n * n // 128
    assert pattern("strided_slide", stride=128).kept_pairs(n, n) == n * n // 128
    causal = sum(range(1, n // 128 + 1)) * 128
    assert pattern("strided_slide", stride=128, causal=True).kept_pairs(n, n) == causal
    assert pattern("axial", height=256, width=512).kept_pairs(n, n) == n * (256 + 512 - 1)
    assert pattern("chunked", chunk=8192).kept_pairs(n, n) == 16 * 8192 * 8193 // 2
    both = pattern("block_sparse", block=128, stride=128)
    assert both.kept_pairs(n, n) == n * (128 + n // 128 - 1)
    drawn: dict[str, Any] = {
        "window": 192,
        "global_tokens": 0,
        "random_blocks": 3,
        "block": 64,
        "seed": 0,
    }
    blocks, few = n // 64, sum(min(3, max(row - 1, 0)) for row in range(4))
    drawn_blocks = few + 3 * (blocks - 4)
    assert pattern("bigbird", **drawn).kept_pairs(n, n) == 64**2 * (3 * blocks - 2 + drawn_blocks)
