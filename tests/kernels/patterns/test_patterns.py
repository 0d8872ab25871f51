"""Every family against a double loop, and against rules that others wrote."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask
from transformers.masking_utils import chunked_causal_mask_function, sliding_window_overlay

from attnscope.kernels.errors import InvalidCall, UnknownPattern
from attnscope.kernels.patterns.catalogue import FAMILIES, pattern
from attnscope.kernels.patterns.composed import Composed, compose
from attnscope.kernels.patterns.flash_window import from_flash_window
from attnscope.kernels.patterns.pattern import (
    EMPTY,
    FULL,
    PARTIAL,
    UNLIKE,
    Pattern,
    SpanPattern,
)
from attnscope.kernels.patterns.predicate import Predicate
from tests.kernels.patterns.rules import (
    BEFORE_THE_FIRST,
    RULES,
    SHAPES,
    WINDOWS,
    looped,
)

every_rule = pytest.mark.parametrize(
    ("found", "rule"), RULES, ids=[f"{found.title}" for found, _ in RULES]
)


every_shape = pytest.mark.parametrize(("queries", "keys", "offset"), SHAPES)


def _speaks_of(found: Pattern, shape: tuple[int, int, int | None]) -> bool:
    """Whether the pattern is for positions below 0 too; those that are not must say so."""
    if shape != BEFORE_THE_FIRST or found.key not in ("axial", "matrix", "rule"):
        return True
    with pytest.raises(InvalidCall, match=r"go from -7|the matrix speaks of 50"):
        found.kept_pairs(shape[0], shape[1], query_offset=shape[2])
    return False


@every_rule
@every_shape
def test_equals_a_double_loop(found: Pattern, rule, queries, keys, offset) -> None:
    if not _speaks_of(found, (queries, keys, offset)):
        return
    expected = looped(rule, queries, keys, offset)
    start = keys - queries if offset is None else offset
    rows, columns = torch.arange(start, start + queries), torch.arange(keys)
    assert np.array_equal(found.visible(rows[:, None], columns[None]).numpy(), expected)
    assert found.kept_pairs(queries, keys, query_offset=offset) == expected.sum()
    assert found.kept_share(queries, keys, query_offset=offset) == expected.mean()
    for block in (1, 4, 16):
        mask = found.block_mask(queries, keys, block, query_offset=offset)
        cells = [
            [expected[r : r + block, c : c + block] for c in range(0, keys, block)]
            for r in range(0, queries, block)
        ]
        meant = [[FULL if c.all() else PARTIAL if c.any() else EMPTY for c in r] for r in cells]
        assert mask.dtype == np.uint8
        assert mask.tolist() == meant
        kept = found.kept_blocks(queries, keys, block, query_offset=offset)
        assert kept == sum(cell != EMPTY for row in meant for cell in row)


@every_rule
@every_shape
def test_spans_hold_what_is_seen(found: Pattern, rule, queries, keys, offset) -> None:
    if not _speaks_of(found, (queries, keys, offset)):
        return
    seen = looped(rule, queries, keys, offset)
    start = keys - queries if offset is None else offset
    for first, last in itertools.combinations(range(queries + 1), 2):
        rows = seen[first:last]
        some, every = (np.zeros(keys, bool) for _ in range(2))
        spans = found.key_spans(start + first, start + last, keys)
        full_spans = found.full_key_spans(start + first, start + last, keys)
        for mask, intervals in ((some, spans), (every, full_spans)):
            assert all(0 <= a < b <= keys for a, b in intervals)
            assert all(b < c for (_, b), (c, _) in itertools.pairwise(intervals))
            for a, b in intervals:
                mask[a:b] = True
        assert not (rows.any(0) & ~some).any()
        assert not (every & ~rows.all(0)).any()
        family = found.first if isinstance(found, Composed) else found
        if isinstance(family, SpanPattern):
            assert np.array_equal(some, rows.any(0)), "not tight"
            assert np.array_equal(every, rows.all(0)), "not tight"


@every_rule
@pytest.mark.parametrize(("rows", "width"), [(4, 2), (6, 6), (8, 4), (12, 3)])
def test_blocks_in_the_same_phase_hold_the_same_pairs(found: Pattern, rule, rows, width) -> None:
    seen, alike = looped(rule, 48, 48, 0), {}
    starts = np.arange(0, 48 - 48 % width, width)
    for row in range(0, 48 - 48 % rows, rows):
        phases = found.phases(range(row, row + rows), starts, width)
        for phase, start in zip(phases, starts, strict=True):
            block = seen[row : row + rows, start : start + width]
            # Of a block that holds nothing no phase is asked.
            if phase != UNLIKE and block.any():
                assert phase >= 0, "taken for one that stands alone"
                assert np.array_equal(alike.setdefault(phase, block), block)


@pytest.mark.parametrize("found", [found for found, _ in RULES if found.key != "full"], ids=str)
@pytest.mark.parametrize(("queries", "keys"), [(32, 32), (16, 48)])
def test_block_mask_equals_flex_attentions(found: Pattern, queries: int, keys: int) -> None:
    block = 8

    def rule(b, h, q_idx, kv_idx):
        return found.visible(q_idx + keys - queries, kv_idx)

    theirs = create_block_mask(rule, None, None, queries, keys, device="cpu", BLOCK_SIZE=block)
    dense = np.zeros((queries // block, keys // block), np.uint8)
    for value, count, index in (
        (PARTIAL, theirs.kv_num_blocks, theirs.kv_indices),
        (FULL, theirs.full_kv_num_blocks, theirs.full_kv_indices),
    ):
        assert count is not None
        assert index is not None
        for row in range(dense.shape[0]):
            dense[row, index[0, 0, row, : count[0, 0, row]].numpy()] = value
    assert found.block_mask(queries, keys, block).tolist() == dense.tolist()


@pytest.mark.parametrize("chunk", [1, 4, 7, 50])
def test_chunked_is_transformers_chunk(chunk: int) -> None:
    i, j = torch.meshgrid(torch.arange(30), torch.arange(30), indexing="ij")
    rule = chunked_causal_mask_function(chunk, torch.zeros(1, dtype=torch.long))
    theirs = [
        [bool(rule(0, 0, *pair)) for pair in zip(*row, strict=True)]
        for row in zip(i, j, strict=True)
    ]
    assert pattern("chunked", chunk=chunk).visible(i, j).tolist() == theirs


@pytest.mark.parametrize("window", WINDOWS)
def test_sliding_window_is_transformers_window(window: int) -> None:
    i, j = torch.meshgrid(torch.arange(20), torch.arange(20), indexing="ij")
    theirs = sliding_window_overlay(window)(0, 0, i, j) & (j <= i)
    assert torch.equal(pattern("sliding_window", window=window).visible(i, j), theirs)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (-1, -1, pattern("full")),
        (-1, 0, pattern("causal")),
        (0, 0, pattern("sliding_window", window=1)),
        (1, 0, pattern("sliding_window", window=2)),
        (1, 1, pattern("local", window=3)),
    ],
)
def test_flash_attentions_window(left: int, right: int, expected: Pattern) -> None:
    converted = from_flash_window(left, right)
    assert converted == expected
    i, j = torch.meshgrid(torch.arange(9), torch.arange(9), indexing="ij")
    meant = ((left == -1) | (j >= i - left)) & ((right == -1) | (j <= i + right))
    assert torch.equal(converted.visible(i, j), meant)


@pytest.mark.parametrize(("left", "right"), [(0, 1), (3, 1), (-1, 4), (2, -1)])
def test_flash_attentions_other_windows_are_refused(left: int, right: int) -> None:
    with pytest.raises(UnknownPattern, match="No pattern for flash-attention's window"):
        from_flash_window(left, right)


@pytest.mark.parametrize(
    ("key", "parameters", "said"),
    [
        ("diagonal", {}, "No pattern 'diagonal'. Use one of full, causal, local"),
        ("sliding_window", {}, "takes window; got none"),
        ("sliding_window", {"size": 4}, "takes window; got size"),
        ("sinks_window", {"window": 4}, "takes window, sinks; got window"),
        ("causal", {"window": 4}, "takes no parameters; got window"),
        ("local", {"window": 0}, "window must be an integer of at least 1, got 0"),
        ("local", {"window": 2.5}, "got 2.5"),
        ("local", {"window": True}, "got True"),
        ("sinks_window", {"window": 1, "sinks": -1}, "sinks must be .* at least 0, got -1"),
        ("packed", {"lengths": 7}, "lengths must be a sequence of integers, got 7"),
        ("packed", {"lengths": (3, 0)}, "every length must be an integer of at least 1, got 0"),
        ("dilated", {"window": 0, "dilation": 2}, "window must be .* at least 1, got 0"),
        ("dilated", {"window": 4, "dilation": 0}, "dilation must be .* at least 1, got 0"),
        ("dilated", {"window": 4}, "takes window, dilation; got window"),
        ("longformer", {"window": 0, "global_tokens": 1}, "window must be .* got 0"),
        ("longformer", {"window": 4, "global_tokens": -2}, "global_tokens must be .* got -2"),
        ("strided", {"stride": 0}, "stride must be an integer of at least 1, got 0"),
        ("strided_slide", {"stride": -3}, "stride must be .* got -3"),
        ("block_sparse", {"block": 0, "stride": 2}, "block must be .* got 0"),
        ("block_sparse", {"block": 2, "stride": 0}, "stride must be .* got 0"),
        ("axial", {"height": 0, "width": 2}, "height must be .* got 0"),
        ("axial", {"height": 2, "width": 1.5}, "width must be .* got 1.5"),
        ("chunked", {"chunk": 0}, "chunk must be .* got 0"),
        (
            "vertical_slash",
            {"columns": (0, -1), "diagonals": ()},
            "columns must be 0 or more, got -1",
        ),
        (
            "vertical_slash",
            {"columns": 3, "diagonals": (0.5,)},
            "diagonals must be integers, got 0.5",
        ),
        ("block_list", {"block": 0, "rows": ((0,),)}, "block must be .* got 0"),
        ("block_list", {"block": 2, "rows": ()}, "rows must be a list of key blocks"),
        ("block_list", {"block": 2, "rows": (0, 1)}, "every row must be a list .* got 0"),
        ("block_list", {"block": 2, "rows": ((0, -1),)}, "every key block must be .* got -1"),
        ("matrix", {"matrix": [[True]]}, r"NumPy array of booleans .*got \[\[True\]\]. Convert it"),
        ("matrix", {"matrix": np.eye(3)}, r"got float64 \(3, 3\)"),
        ("matrix", {"matrix": np.ones(3, bool)}, r"got bool \(3,\)"),
        ("matrix", {"matrix": np.ones((0, 3), bool)}, "must have a query and a key"),
    ],
)
def test_unknown_patterns_are_refused_with_what_is_valid(key, parameters, said) -> None:
    with pytest.raises(UnknownPattern, match=said):
        pattern(key, **parameters)


def test_every_pattern_can_be_rebuilt_from_its_key_and_parameters() -> None:
    for found, _ in RULES:
        if found.key != "custom":
            assert pattern(found.key, **found.parameters) == found
            assert hash(pattern(found.key, **found.parameters)) == hash(found)


def test_every_family_is_tested_here() -> None:
    assert {found.key for found, _ in RULES} == {*FAMILIES, "custom"}


def test_titles_are_for_people() -> None:
    assert pattern("full").title == "full"
    assert pattern("sinks_window", window=8, sinks=4).title == "sinks window (window 8, sinks 4)"
    assert pattern("packed", lengths=(3,)).title == "packed (1 document)"
    assert pattern("packed", lengths=(3, 5), causal=True).title == "packed (2 documents), causal"
    assert pattern("local", window=3, causal=True).title == "local (window 3), causal"
    assert Predicate(function=torch.ge, label="past or present").title == "past or present"


def test_compositions_are_said_as_simply_as_can_be() -> None:
    causal, window = pattern("causal"), pattern("sliding_window", window=3)
    assert compose(pattern("full"), window) == window
    assert compose(window, causal) == window
    assert compose(causal, pattern("full")) == causal
    chunked = pattern("chunked", chunk=4)
    assert compose(chunked, causal) == chunked
    both = compose(pattern("local", window=4), window)
    assert both.parameters == {"window": 4, "sliding_window": {"window": 3}}


def test_a_rule_must_give_booleans() -> None:
    numbers = Predicate(function=lambda q, k: q - k, label="a distance")
    with pytest.raises(InvalidCall, match=r"'a distance' must give booleans, got torch.int64"):
        numbers.visible(torch.arange(3), torch.arange(3))


def test_closed_forms_reach_lengths_no_loop_could() -> None:
    n, w = 131_072, 4_096
    assert pattern("causal").kept_pairs(n, n) == n * (n + 1) // 2
    assert pattern("sliding_window", window=w).kept_pairs(n, n) == n * w - w * (w - 1) // 2
    assert pattern("sinks_window", window=w, sinks=4).kept_pairs(1, n) == w + 4
    assert pattern("sliding_window", window=w).block_mask(n, n, 1024).sum() == (
        PARTIAL * (128 + 124) + FULL * (127 + 126 + 125)
    )
