"""Every family against a double loop, and against rules that others wrote."""

import itertools
from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask
from transformers.masking_utils import sliding_window_overlay

from attnscope.kernels.errors import InvalidCall, UnknownPattern
from attnscope.kernels.patterns.catalogue import FAMILIES, pattern
from attnscope.kernels.patterns.composed import compose
from attnscope.kernels.patterns.flash_window import from_flash_window
from attnscope.kernels.patterns.pattern import EMPTY, FULL, PARTIAL, Pattern
from attnscope.kernels.patterns.predicate import Predicate

WINDOWS = (1, 2, 5, 8, 50)


def _rules():
    """Each pattern beside its rule, as mechanisms are written down: for (i attends to j)."""
    yield pattern("full"), lambda i, j: True
    yield pattern("causal"), lambda i, j: j <= i
    yield pattern("full", causal=True), lambda i, j: j <= i
    for w in WINDOWS:
        yield pattern("local", window=w), lambda i, j, w=w: abs(i - j) <= w // 2
        yield (
            pattern("local", window=w, causal=True),
            lambda i, j, w=w: abs(i - j) <= w // 2 and j <= i,
        )
        yield pattern("sliding_window", window=w), lambda i, j, w=w: i - w < j <= i
        for s in (0, 1, 3, 50):
            yield (
                pattern("sinks_window", window=w, sinks=s),
                lambda i, j, w=w, s=s: i - w < j <= i or j < s,
            )
            yield (
                pattern("sinks_window", window=w, sinks=s, causal=True),
                lambda i, j, w=w, s=s: (i - w < j <= i or j < s) and j <= i,
            )
    for lengths in ((), (3,), (1, 5, 2), (2, 4, 60)):
        packed = pattern("packed", lengths=lengths)
        of = partial(_document, lengths)
        yield packed, lambda i, j, of=of: of(i) == of(j)
        yield (
            pattern("packed", lengths=lengths, causal=True),
            lambda i, j, of=of: of(i) == of(j) and j <= i,
        )
        yield (
            compose(packed, pattern("sliding_window", window=3)),
            lambda i, j, of=of: of(i) == of(j) and i - 3 < j <= i,
        )
    yield (
        Predicate(function=lambda q, k: (q + k) % 3 == 0, label="thirds"),
        lambda i, j: (i + j) % 3 == 0,
    )


def _document(lengths: Sequence[int], position: int) -> int:
    return sum(position >= sum(lengths[: n + 1]) for n in range(len(lengths)))


RULES = list(_rules())
# Queries, keys, position of the first query (None: the last query on the last key).
SHAPES = ((13, 13, None), (5, 17, None), (1, 9, None), (1, 1, None), (6, 11, 0), (12, 5, None))

every_rule = pytest.mark.parametrize(
    ("found", "rule"), RULES, ids=[f"{found.title}" for found, _ in RULES]
)


def _brute(rule, queries: int, keys: int, offset: int | None) -> np.ndarray:
    start = keys - queries if offset is None else offset
    return np.array([[rule(start + i, j) for j in range(keys)] for i in range(queries)])


@every_rule
@pytest.mark.parametrize(("queries", "keys", "offset"), SHAPES)
def test_equals_a_double_loop(found: Pattern, rule, queries, keys, offset) -> None:
    expected = _brute(rule, queries, keys, offset)
    start = keys - queries if offset is None else offset
    rows, columns = torch.arange(start, start + queries), torch.arange(keys)
    assert np.array_equal(found.visible(rows[:, None], columns[None]).numpy(), expected)
    assert found.kept_pairs(queries, keys, query_offset=offset) == expected.sum()
    for block in (1, 4, 16):
        mask = found.block_mask(queries, keys, block, query_offset=offset)
        cells = [
            [expected[r : r + block, c : c + block] for c in range(0, keys, block)]
            for r in range(0, queries, block)
        ]
        meant = [[FULL if c.all() else PARTIAL if c.any() else EMPTY for c in r] for r in cells]
        assert mask.dtype == np.uint8
        assert mask.tolist() == meant


@every_rule
@pytest.mark.parametrize(("queries", "keys", "offset"), SHAPES)
def test_spans_hold_what_is_seen(found: Pattern, rule, queries, keys, offset) -> None:
    seen = _brute(rule, queries, keys, offset)
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
        if found.key != "custom":
            assert np.array_equal(some, rows.any(0)), "not tight"
            assert np.array_equal(every, rows.all(0)), "not tight"


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
