"""Distances between maps, against those of the float64 maps themselves; scipy's are the formulas."""

import math

import pytest
import torch
from torch import Tensor

from attnscope.kernels import disagreement as module
from attnscope.kernels.disagreement import HIGHEST, Measure, disagreement
from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.patterns.causal import Causal
from attnscope.kernels.streaming import Layer
from tests.layers import LayerTruth, last_layer
from tests.shapes import CASES, Case

MEASURES: tuple[Measure, ...] = ("total_variation", "jensen_shannon")


def distance(one: list[float], other: list[float], measure: Measure) -> float:
    """Of two distributions, key by key."""
    if measure == "total_variation":
        return sum(abs(p - r) for p, r in zip(one, other, strict=True)) / 2
    total = 0.0
    for p, r in zip(one, other, strict=True):
        half = (p + r) / 2
        total += sum(x / 2 * math.log(x / half) for x in (p, r) if x > 0)
    return total


def brute_force(truth: LayerTruth, groups: int, measure: Measure) -> Tensor:
    weights_HQK = truth.weights_HQK
    heads, queries, _ = weights_HQK.shape
    size = heads // groups
    rows = [[row.tolist() for row in weights] for weights in weights_HQK]
    if truth.sinks_H is not None:
        rows = [[[*row, 1 - sum(row)] for row in head] for head in rows]
    seeing = [q for q in range(queries) if bool(truth.lse_HQ[0, q] != -torch.inf)]
    found = torch.full((groups, size, size), torch.nan, dtype=torch.float64)
    for group in range(groups):
        for one in range(size):
            for other in range(size):
                pair = rows[group * size + one], rows[group * size + other]
                apart = [distance(pair[0][q], pair[1][q], measure) for q in seeing]
                found[group, one, other] = sum(apart) / len(apart) if apart else torch.nan
    return found


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_equals_the_distances_of_the_maps(
    case: Case, measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = last_layer(case)
    monkeypatch.setattr(module, "LEAST_ROWS", 5)
    monkeypatch.setattr(module, "BLOCK_PAIRS", 1)
    monkeypatch.setattr(module, "BLOCK_KEYS", 7)
    for groups in {truth.layer.k_GKD.shape[0], 1}:
        found = disagreement(truth.layer, truth.lse_HQ, groups=groups, measure=measure)
        expected = brute_force(truth, groups, measure)
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=2e-5, equal_nan=True)


def layer_of(q_HQD: Tensor, k_GKD: Tensor) -> tuple[Layer, Tensor]:
    layer = Layer(q_HQD=q_HQD, k_GKD=k_GKD, pattern=Causal(), query_offset=0, scale=1.0)
    queries = slice(0, q_HQD.shape[1])
    seen = layer.seen(torch.arange(q_HQD.shape[1]), range(k_GKD.shape[1]))
    scores = layer.scores(queries, slice(0, k_GKD.shape[1])).masked_fill(~seen, -torch.inf)
    return layer, scores.logsumexp(-1)


@pytest.mark.parametrize("measure", MEASURES)
def test_equal_heads_agree_and_heads_without_a_common_key_reach_the_highest(measure) -> None:
    q_HQD = torch.zeros(2, 6, 2)
    q_HQD[0, :, 0] = q_HQD[1, :, 1] = 80.0
    k_GKD = torch.zeros(1, 6, 2)
    k_GKD[0, 0, 0] = k_GKD[0, 1, 1] = 1.0
    found = disagreement(*layer_of(q_HQD, k_GKD), measure=measure)
    assert found.shape == (1, 2, 2)
    # The first query sees one key alone, in which both heads agree.
    torch.testing.assert_close(found[0, 0, 1], torch.tensor(HIGHEST[measure] * 5 / 6))
    same = disagreement(*layer_of(q_HQD[:1].repeat(2, 1, 1), k_GKD), measure=measure)
    assert same.abs().max() < 1e-6


def test_what_has_no_meaning_is_refused() -> None:
    layer, lse_HQ = layer_of(torch.zeros(4, 3, 2), torch.zeros(2, 3, 2))
    with pytest.raises(InvalidCall, match="4 query heads do not form 3 groups"):
        disagreement(layer, lse_HQ, groups=3)
    with pytest.raises(InvalidCall, match="No measure 'cosine'"):
        disagreement(layer, lse_HQ, measure="cosine")  # pyright: ignore[reportArgumentType]
