"""Means by distance, against a loop over the pairs of the float64 maps."""

import pytest
import torch

from attnscope.kernels import by_distance as module
from attnscope.kernels.by_distance import Reading, by_distance
from attnscope.kernels.errors import InvalidCall
from tests.layers import last_layer
from tests.shapes import CASES, Case, every_case


@pytest.mark.parametrize("reading", ["score", "weight"])
@every_case(biased=True)
def test_equals_a_loop_over_the_visible_pairs(
    case: Case, reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = last_layer(case)
    monkeypatch.setattr(module, "LEAST_ROWS", 5)
    monkeypatch.setattr(module, "BLOCK_PAIRS", 1)
    monkeypatch.setattr(module, "BLOCK_KEYS", 7)
    layer = truth.layer
    found = by_distance(layer, reading=reading, lse_HQ=truth.lse_HQ)
    values_HQK = truth.scores_HQK if reading == "score" else truth.weights_HQK
    totals: dict[int, list] = {}
    for query, key in truth.seen_QK.nonzero().tolist():
        distance = query + layer.query_offset - key
        totals.setdefault(distance, []).append(values_HQK[:, query, key])
    assert found.distance_M.tolist() == sorted(totals)
    assert found.pairs_M.tolist() == [len(totals[one]) for one in sorted(totals)]
    for at, distance in enumerate(sorted(totals)):
        expected = torch.stack(totals[distance]).mean(0)
        torch.testing.assert_close(found.mean_HM[:, at].double(), expected, rtol=1e-4, atol=1e-5)


def test_what_has_no_meaning_is_refused() -> None:
    layer = last_layer(CASES[0]).layer
    with pytest.raises(InvalidCall, match="Weights need the log-sum-exp"):
        by_distance(layer, reading="weight")
    with pytest.raises(InvalidCall, match="No reading 'mass'"):
        by_distance(layer, reading="mass")  # pyright: ignore[reportArgumentType]
