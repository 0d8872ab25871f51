"""The order of work: everything once, the longest first, evenly spread."""

import math
from typing import Any

import pytest
import torch
import triton
import triton.language as tl

from attnscope.kernels.triton.work_order import place_of, turns_of, work_at


@triton.jit
def _order(p_head, p_block, blocks, heads, section):
    program, programs = tl.program_id(0), tl.num_programs(0)
    for turn in range(turns_of(blocks * heads, program, programs)):
        place = place_of(turn, program, programs)
        block, head = work_at(place, blocks, heads, section)
        tl.store(p_head + turn * programs + program, head)
        tl.store(p_block + turn * programs + program, block)


def order(programs: int, blocks: int, heads: int, section: int) -> list[list[tuple[int, int]]]:
    """What each program does in turn: head and block of queries."""
    turns = math.ceil(blocks * heads / programs)
    head, block = (torch.full((turns * programs,), -1, dtype=torch.int32) for _ in range(2))
    kernel: Any = _order
    kernel[(programs,)](head, block, blocks, heads, section)
    pairs = list(zip(head.tolist(), block.tolist(), strict=True))
    return [[pair for pair in pairs[at::programs] if pair[0] >= 0] for at in range(programs)]


@pytest.mark.parametrize(
    ("programs", "blocks", "heads", "section"),
    [(1, 3, 4, 2), (5, 4, 7, 3), (6, 1, 2, 9), (3, 5, 3, 1)],
)
def test_every_block_of_every_head_is_done_once(programs, blocks, heads, section) -> None:
    done = [pair for each in order(programs, blocks, heads, section) for pair in each]
    assert sorted(done) == [(head, block) for head in range(heads) for block in range(blocks)]


def test_the_longest_of_a_section_comes_first_and_shared_keys_together() -> None:
    (done,) = order(1, 2, 4, 2)
    assert done == [(0, 1), (1, 1), (0, 0), (1, 0), (2, 1), (3, 1), (2, 0), (3, 0)]


def test_causal_work_is_spread_evenly_over_the_programs() -> None:
    # 16 heads of 2048 tokens in blocks of 128 on 22 programs: the goals' grid, a sixth of it.
    loads = [sum(block + 1 for _, block in each) for each in order(22, 16, 16, 16)]
    assert max(loads) <= 1.05 * sum(loads) / len(loads)
