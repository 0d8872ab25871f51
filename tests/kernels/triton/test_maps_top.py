"""Top keys, and all that is totalled, by Triton: the tests of `kernels/totals.py`, in the interpreter."""

from dataclasses import replace

import pytest
import torch

from attnscope.kernels.triton.configurations import FlashConfig
from attnscope.kernels.triton.maps_top import top_keys
from tests.kernels.test_totals import assert_right, assert_top_is_right
from tests.kernels.triton.test_maps_cells import LISTED, LONGER
from tests.layers import last_layer
from tests.shapes import Case, every_case

SMALL = FlashConfig(block_queries=16, block_keys=16, num_warps=4, num_stages=1)


@every_case("one query", "rows that see nothing", "everything at once")
def test_totals_are_those_of_the_dense_weights(case: Case) -> None:
    assert_right(last_layer(_of_one_group(case)), "triton")


@pytest.mark.parametrize("case", [LONGER[0], LONGER[3], LISTED[1]], ids=lambda case: case.id)
def test_top_keys_over_many_tiles(case: Case) -> None:
    truth = last_layer(_of_one_group(case))
    scores_HQK = truth.scores_HQK.masked_fill(~truth.seen_QK, -torch.inf)
    best, exact = scores_HQK.topk(3, -1)
    scores, keys = top_keys(truth.layer, 3, config=SMALL)
    assert torch.equal(keys, exact.masked_fill(best == -torch.inf, -1))
    torch.testing.assert_close(scores.double(), best, rtol=1e-5, atol=1e-5)


def test_as_it_ships_in_half_precision_and_with_as_many_keys_as_are_given() -> None:
    case = Case(id="half", query_heads=1, kv_heads=1, queries=40, keys=70, head_dim=80)
    assert_top_is_right(last_layer(case, "float16"), "triton", count=7)
    assert_top_is_right(last_layer(case), "triton", count=16)


def _of_one_group(case: Case) -> Case:
    """Sorting takes the interpreter long: two heads of one group tell what more would."""
    return replace(case, query_heads=2, kv_heads=1)


def test_of_equal_scores_the_first_key_comes_first() -> None:
    truth = last_layer(Case(id="ties", query_heads=2, kv_heads=1))
    alike = replace(truth.layer, k_GKD=truth.layer.k_GKD[:, :1].expand(-1, 33, -1))
    _, keys = top_keys(alike, 2, config=SMALL)
    assert (keys[:, 1:] == torch.tensor([0, 1])).all()
    assert (keys[:, 0] == torch.tensor([0, -1])).all()
