"""Cuts and runs against loops over every position."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from attnscope.kernels.bins import bin_edges
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.triton.flash_rule import rule_of
from attnscope.kernels.triton.maps_cut import WHOLE, axis, runs

PATTERNS = (
    pattern("full"),
    pattern("causal"),
    pattern("sliding_window", window=5),
    pattern("local", window=11),
    pattern("sinks_window", window=6, sinks=13),
    pattern("sinks_window", window=6, sinks=13, causal=True),
)


@pytest.mark.parametrize("block", [16, 64])
@pytest.mark.parametrize("cells", [1, 3, 7, 48, 97])
def test_parts_are_whole_shares_of_cells_and_hold_every_position_once(
    cells: int, block: int
) -> None:
    edges = bin_edges(5, 102, cells)
    cut = axis(edges, block)
    assert cut.edges[:: cut.split].tolist() == edges.tolist()
    assert block % cut.slots == 0
    held = cut.positions[cut.positions >= 0]
    assert held.tolist() == list(range(5, 102))
    assert cut.has_slack == bool((cut.positions < 0).any())
    assert cut.starts.tolist() == [*(tile[tile >= 0].min() for tile in cut.positions), 102]
    # Of two slots at least one is used, but for the last tile.
    assert cut.split * cut.slots < 2 * int(edges.diff().max())


def test_cells_that_fill_their_tiles_leave_nothing_over() -> None:
    cut = axis(bin_edges(0, 4096, 64), 64)
    assert (cut.split, cut.slots, cut.has_slack) == (1, 64, False)
    assert not axis(torch.tensor([3, 35, 67]), 64).has_slack
    assert axis(torch.tensor([0, 32]), 64).has_slack


@pytest.mark.parametrize("offset", [0, 9, 40])
@pytest.mark.parametrize("rule", PATTERNS, ids=lambda rule: rule.title)
def test_runs_visit_what_is_visible_and_call_whole_what_is(rule: Pattern, offset: int) -> None:
    query_starts, key_starts = np.array([0, 4, 11, 12, 30]), np.array([2, 5, 9, 20, 21, 37, 44])
    told = rule_of(rule, query_offset=offset, scale=1.0, softcap=None)
    assert told is not None
    found = runs(told, query_starts, key_starts)
    for block, (first, last) in enumerate(pairwise(query_starts)):
        at = torch.arange(first, last)[:, None] + offset
        visited = [tile for start, end in found[block] for tile in range(start, end)]
        assert len(visited) == len(set(visited))
        for tile, (start, end) in enumerate(pairwise(key_starts)):
            seen = rule.visible(at, torch.arange(start, end)[None]).expand(
                last - first, end - start
            )
            whole = found[block, WHOLE, 0] <= tile < found[block, WHOLE, 1]
            assert tile in visited or not seen.any()
            assert seen.all() or not whole
