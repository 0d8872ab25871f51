"""What keys receive and queries give, against dense float64 attention."""

from typing import Any

import pytest
import torch

from attnscope.kernels import totals
from attnscope.kernels.cells import By
from attnscope.kernels.errors import InvalidCall, UnsupportedCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.scores import visible
from tests.layers import LayerTruth, last_layer, layer_truths
from tests.shapes import Case, every_case

CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}
PATTERNS = (
    pattern("sliding_window", window=5),
    pattern("local", window=9),
    pattern("sinks_window", window=4, sinks=2),
)


def assert_right(truth: LayerTruth, by: By) -> None:
    layer, lse_HQ, weights_HQK = truth.layer, truth.lse_HQ, truth.weights_HQK
    received = totals.received(layer, lse_HQ, by=by)
    torch.testing.assert_close(received.double(), weights_HQK.sum(1), **CLOSE)
    largest = totals.largest(layer, lse_HQ, by=by)
    torch.testing.assert_close(largest.double(), weights_HQK.amax(2), **CLOSE)
    queries, keys = truth.seen_QK.shape
    positions = range(layer.query_offset, layer.query_offset + queries)
    rule = PATTERNS[keys % len(PATTERNS)]
    shown_QK = visible(rule, positions, range(keys))
    kept = totals.kept(layer, lse_HQ, rule, by=by)
    exact = weights_HQK.masked_fill(~shown_QK, 0.0).sum(2)
    torch.testing.assert_close(kept.double(), exact, **CLOSE)
    assert_top_is_right(truth, by)


def assert_top_is_right(truth: LayerTruth, by: By, count: int = 5) -> None:
    weights, keys = totals.top_keys(truth.layer, truth.lse_HQ, count, by=by)
    scores_HQK = truth.scores_HQK.masked_fill(~truth.seen_QK, -torch.inf)
    some = min(count, scores_HQK.shape[2])
    best, exact = scores_HQK.topk(some, -1)
    assert torch.equal(keys[..., :some], exact.masked_fill(best == -torch.inf, -1))
    found = truth.weights_HQK.gather(-1, exact).masked_fill(best == -torch.inf, 0.0)
    torch.testing.assert_close(weights[..., :some].double(), found, **CLOSE)
    assert not weights[..., some:].any()
    assert (keys[..., some:] == -1).all()


@every_case(biased=True)
def test_totals_are_those_of_the_dense_weights(case: Case) -> None:
    for truth in layer_truths(case.inputs()):
        assert_right(truth, "torch")


def test_many_blocks_of_keys_and_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(totals, "BLOCK_KEYS", 8)
    monkeypatch.setattr(totals, "LEAST_ROWS", 4)
    monkeypatch.setattr(totals, "BLOCK_PAIRS", 1)
    assert_right(last_layer(Case(id="blocks", queries=40, keys=40)), "torch")


@pytest.mark.parametrize("count", [0, 17])
def test_a_count_of_keys_has_bounds(count: int) -> None:
    truth = last_layer(Case(id="bounds"))
    with pytest.raises(InvalidCall, match="1 to 16"):
        totals.top_keys(truth.layer, truth.lse_HQ, count)


def test_who_computes_must_exist_and_take_the_layer() -> None:
    truth = last_layer(Case(id="who"))
    nobody: Any = "cuda"
    with pytest.raises(InvalidCall, match="triton or torch"):
        totals.received(truth.layer, truth.lse_HQ, by=nobody)
    with pytest.raises(UnsupportedCall, match="need an NVIDIA or AMD GPU"):
        totals.received(truth.layer, truth.lse_HQ, by="triton")
