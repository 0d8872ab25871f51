"""The plan is held against the pattern itself, pair by pair."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from attnscope.kernels.errors import UnsupportedCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.patterns.predicate import Predicate
from attnscope.kernels.triton import block_plan as block_plan_module
from attnscope.kernels.triton.block_plan import (
    MOST_MASK_BYTES,
    BlockPlan,
    block_plan,
    sparse_config,
)


def two_documents(query: Tensor, key: Tensor) -> Tensor:
    # By a table, as transformers' packed sequences: a position outside it would raise.
    document = (torch.arange(100) >= 37).long()
    return (document[query] == document[key]) & (key <= query)


PATTERNS: list[Pattern] = [
    pattern("full"),
    pattern("causal"),
    pattern("local", window=9),
    pattern("sinks_window", window=20, sinks=3),
    pattern("sinks_window", window=20, sinks=3, causal=True),
    pattern("dilated", window=60, dilation=5),
    pattern("dilated", window=60, dilation=5, causal=True),
    pattern("longformer", window=21, global_tokens=9),
    pattern("bigbird", window=24, global_tokens=5, random_blocks=2, block=8, seed=2),
    pattern("bigbird", window=16, global_tokens=16, random_blocks=2, block=16, seed=2, causal=True),
    pattern("strided", stride=6),
    pattern("strided_slide", stride=7, causal=True),
    pattern("block_sparse", block=20, stride=12),
    pattern("axial", height=12, width=9),
    pattern("axial", height=5, width=20, causal=True),
    pattern("chunked", chunk=24),
    pattern("matrix", matrix=np.random.default_rng(0).random((120, 120)) < 0.2),
    Predicate(function=two_documents, label="documents"),
    Predicate(function=lambda query, key: (query + key) < 0, label="nothing"),
]
LENGTHS = [(100, 100, 0), (64, 64, 0), (1, 100, 99), (7, 90, 10), (33, 5, 60)]
BLOCKS = [(16, 16), (32, 16), (64, 64), (128, 64)]


def plan_of(
    chosen: Pattern, lengths: tuple[int, int, int], blocks: tuple[int, int] = (32, 16)
) -> BlockPlan:
    return block_plan(
        chosen,
        query_length=lengths[0],
        key_length=lengths[1],
        query_offset=lengths[2],
        block_queries=blocks[0],
        block_keys=blocks[1],
    )


def rows_of(starts: np.ndarray, values: np.ndarray) -> list[np.ndarray]:
    return [values[first:end] for first, end in pairwise(starts)]


def pairs_of(plan: BlockPlan, lengths: tuple[int, int, int], blocks: tuple[int, int]) -> np.ndarray:
    """The visible pairs that the plan speaks of, counted: a pair in two blocks would be 2."""
    rows, columns = -(-lengths[0] // blocks[0]), -(-lengths[1] // blocks[1])
    counted = np.zeros((rows * blocks[0], columns * blocks[1]), int)
    for row, listed in enumerate(rows_of(plan.full_starts, plan.full_columns)):
        for column in listed:
            assert (column + 1) * blocks[1] <= lengths[1], "a full block past the last key"
            counted[row * blocks[0] :, column * blocks[1] :][: blocks[0], : blocks[1]] += 1
    which = rows_of(plan.partial_starts, plan.partial_masks)
    for row, listed in enumerate(rows_of(plan.partial_starts, plan.partial_columns)):
        for column, mask in zip(listed, which[row], strict=True):
            bits = (plan.masks[mask][:, None] >> np.arange(blocks[1])) & 1
            counted[row * blocks[0] :, column * blocks[1] :][: blocks[0], : blocks[1]] += bits
            assert bits.any(), "a block that nobody sees is visited"
    # Queries past the last are not written; keys past it must not be seen.
    assert not counted[: lengths[0], lengths[1] :].any()
    return counted[: lengths[0], : lengths[1]]


@pytest.mark.parametrize("chosen", PATTERNS, ids=lambda chosen: chosen.title)
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("blocks", BLOCKS, ids=str)
def test_says_of_every_pair_what_the_pattern_says(chosen: Pattern, lengths, blocks) -> None:
    queries = torch.arange(lengths[0])[:, None] + lengths[2]
    visible = chosen.visible(queries, torch.arange(lengths[1])[None])
    expected = visible.expand(*lengths[:2]).numpy().astype(int)
    plan = plan_of(chosen, lengths, blocks)
    assert np.array_equal(pairs_of(plan, lengths, blocks), expected)


@pytest.mark.parametrize("chosen", PATTERNS, ids=lambda chosen: chosen.title)
def test_the_longest_rows_start_first_and_equal_masks_are_held_once(chosen: Pattern) -> None:
    plan = plan_of(chosen, (100, 100, 0))
    visited = np.diff(plan.full_starts) + np.diff(plan.partial_starts)
    assert sorted(plan.order) == list(range(4))
    assert list(visited[plan.order]) == sorted(visited, reverse=True)
    assert plan.blocks == visited.sum()
    assert len(np.unique(plan.masks, axis=0)) == len(plan.masks)
    assert plan.nbytes == sum(array.nbytes for array in plan.arrays)


def test_whole_blocks_are_listed_apart() -> None:
    plan = plan_of(pattern("causal"), (128, 128, 0), (16, 16))
    assert list(np.diff(plan.full_starts)) == list(range(8))
    assert list(plan.partial_columns) == list(range(8))
    assert len(plan.masks) == 1
    full = plan_of(pattern("full"), (128, 128, 0), (16, 16))
    assert len(full.full_columns) == 64
    assert full.partial_columns.size == full.masks.size == 0


def test_holds_a_strip_of_pairs_at_a_time_and_grows_with_the_blocks() -> None:
    sizes = []

    def window(query: Tensor, key: Tensor) -> Tensor:
        seen = (query - key).abs() < 100
        sizes.append(seen.numel())
        return seen

    length = 2048
    plan = plan_of(Predicate(function=window, label="window"), (length, length, 0), (128, 64))
    assert max(sizes) <= 128 * length
    shorter = plan_of(pattern("local", window=199), (length, length, 0), (128, 64))
    longer = plan_of(pattern("local", window=199), (4 * length, 4 * length, 0), (128, 64))
    assert plan.blocks == shorter.blocks
    assert longer.blocks < 4.2 * shorter.blocks
    assert len(longer.masks) <= len(shorter.masks) + 2


@pytest.mark.parametrize(
    ("chosen", "most"),
    [
        (pattern("strided", stride=96), 3),
        (pattern("strided_slide", stride=96, causal=True), 5),
        (pattern("dilated", window=1000, dilation=3), 50),
        (pattern("bigbird", window=48, global_tokens=64, random_blocks=3, block=16, seed=0), 999),
    ],
    ids=lambda value: value.title if isinstance(value, Pattern) else str(value),
)
def test_blocks_known_to_be_alike_are_looked_at_once(
    chosen: Pattern, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    original = block_plan_module._Masks._words

    def counted(masks: Any, queries: range, columns: np.ndarray) -> Any:
        asked.append(len(columns))
        return original(masks, queries, columns)

    monkeypatch.setattr(block_plan_module._Masks, "_words", counted)
    length = 4096
    plan = plan_of(chosen, (length, length, 0), (128, 64))
    # Those on the diagonal, a row at most, are looked at one by one.
    alone = 2 * length // 128 if chosen.key == "strided_slide" else 0
    assert sum(asked) <= min(most + alone, len(plan.partial_columns) // 2)
    assert len(plan.masks) <= sum(asked)
    rows = rows_of(plan.partial_starts, plan.partial_columns)
    which = rows_of(plan.partial_starts, plan.partial_masks)
    for row in (0, 7, 31):
        queries = torch.arange(row * 128, row * 128 + 128)[:, None]
        for column, mask in zip(rows[row], which[row], strict=True):
            keys = torch.arange(column * 64, column * 64 + 64)[None]
            words = plan.masks[mask].astype(np.uint64)
            bits = (words[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
            assert np.array_equal(bits.astype(bool), chosen.visible(queries, keys).expand(128, 64))


def test_a_rule_without_structure_is_refused_before_it_fills_the_memory(monkeypatch) -> None:
    def scattered(query: Tensor, key: Tensor) -> Tensor:
        return (query * 7919 + key * 104_729 + query * key * 31) % 97 < 48

    monkeypatch.setattr("attnscope.kernels.triton.block_plan.MOST_MASK_BYTES", 2**16)
    assert MOST_MASK_BYTES == 2**26
    with pytest.raises(UnsupportedCall, match="'scattered' divides its blocks in so many ways"):
        plan_of(Predicate(function=scattered, label="scattered"), (2000, 2000, 0), (64, 64))


def test_a_plan_is_made_once() -> None:
    first = plan_of(pattern("local", window=5), (100, 100, 0))
    assert plan_of(pattern("local", window=5), (100, 100, 0)) is first
    assert plan_of(pattern("local", window=5), (101, 100, 0)) is not first


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("width", [16, 64, 80, 128, 192, 256])
@pytest.mark.parametrize("hopper", [True, False])
def test_configurations_are_ones_the_plan_takes_and_the_memory_holds(
    dtype, width: int, hopper: bool
) -> None:
    found = sparse_config(width, dtype, hopper=hopper)
    assert found.block_queries % found.block_keys == 0
    assert found.block_keys <= 64
    padded = 1 << (width - 1).bit_length()
    buffers = (found.num_stages - 1) // 2
    held = (found.block_queries + 2 * buffers * found.block_keys) * padded * dtype.itemsize
    assert held <= (227 if hopper else 99) * 1024
