"""Products with the mean of a layer's heads, against the dense float64 matrix.

H query heads, Q, K positions; S rows or columns.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from attnscope.kernels import mixed
from attnscope.kernels.errors import JobCancelled
from attnscope.kernels.log_sum_exp import log_sum_exp
from attnscope.kernels.mixed import Mixed
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.streaming import BLOCK_PAIRS, Layer
from tests.kernels.test_tiled import LargestTensor
from tests.layers import LayerTruth, last_layer, layer_truths
from tests.shapes import Case, every_case

CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-6}


def mixed_of(truth: LayerTruth, *, by_value: bool) -> Mixed:
    norm_HK = truth.value_norm_HK if by_value else None
    return Mixed(layer=truth.layer, lse_HQ=truth.lse_HQ, value_norm_HK=norm_HK)


def dense(truth: LayerTruth, *, by_value: bool) -> Tensor:
    """The same matrix, whole: `[Q, K]`."""
    if not by_value:
        return truth.weights_HQK.mean(0)
    worth_QK = truth.worth("value_weighted").masked_fill(~truth.seen_QK, 0.0).mean(0)
    return (worth_QK / worth_QK.sum(1, keepdim=True)).nan_to_num(0.0)


def assert_right(truth: LayerTruth, *, by_value: bool) -> None:
    found, exact_QK = mixed_of(truth, by_value=by_value), dense(truth, by_value=by_value)
    queries, keys = exact_QK.shape
    made = torch.Generator().manual_seed(0)
    rows_SQ = torch.rand(3, queries, generator=made)
    columns_KS = torch.rand(keys, 2, generator=made)
    torch.testing.assert_close(found.before(rows_SQ).double(), rows_SQ.double() @ exact_QK, **CLOSE)
    after_QS = found.after(columns_KS)
    torch.testing.assert_close(after_QS.double(), exact_QK @ columns_KS.double(), **CLOSE)
    tile_RC = found.tile(slice(queries // 2, queries), slice(0, keys))
    torch.testing.assert_close(tile_RC.double(), exact_QK[queries // 2 :], **CLOSE)
    assert not tile_RC[~truth.seen_QK[queries // 2 :]].any()


@every_case(biased=True)
@pytest.mark.parametrize("by_value", [False, True])
def test_products_are_those_of_the_dense_matrix(case: Case, by_value: bool) -> None:
    for truth in layer_truths(case.inputs()):
        assert_right(truth, by_value=by_value)


@pytest.mark.parametrize("by_value", [False, True])
def test_many_tiles(by_value: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (("BLOCK_KEYS", 8), ("LEAST_ROWS", 4), ("BLOCK_PAIRS", 1)):
        monkeypatch.setattr(mixed, name, size)
    case = Case(
        id="45 tokens",
        queries=45,
        keys=45,
        sinks=True,
        pattern=pattern("sliding_window", window=11),
    )
    assert_right(last_layer(case), by_value=by_value)


def test_only_queries_that_hold_something_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixed, "LEAST_ROWS", 4)
    monkeypatch.setattr(mixed, "BLOCK_PAIRS", 1)
    truth = last_layer(Case(id="45 tokens", queries=45, keys=45))
    read: list[slice] = []
    found = mixed_of(truth, by_value=False)
    scores = type(truth.layer).scores

    def reading(layer: Layer, queries: slice, keys: slice) -> Tensor:
        read.append(queries)
        return scores(layer, queries, keys)

    monkeypatch.setattr(Layer, "scores", reading)
    rows_SQ = torch.zeros(1, 45)
    rows_SQ[0, 30] = 1.0
    row_K = found.before(rows_SQ)[0].double()
    assert read == [slice(30, 31)]
    torch.testing.assert_close(row_K, dense(truth, by_value=False)[30], **CLOSE)
    assert not found.before(torch.zeros(1, 45)).any()
    assert len(read) == 1


def test_no_array_holds_all_pairs() -> None:
    length = 3000
    made = torch.Generator().manual_seed(0)
    q_HQD, k_GKD = (torch.randn(2, length, 8, generator=made) for _ in range(2))
    layer = Layer(
        q_HQD=q_HQD, k_GKD=k_GKD, pattern=pattern("causal"), query_offset=0, scale=8**-0.5
    )
    lse_HQ = log_sum_exp(
        q_HQD[None], k_GKD[None], pattern=pattern("causal"), query_offset=0, scale=8**-0.5
    )[0]
    found = Mixed(layer=layer, lse_HQ=lse_HQ, value_norm_HK=torch.rand(2, length, generator=made))
    with LargestTensor() as largest:
        row_SK = found.before(torch.full((1, length), 1 / length))
        found.after(torch.ones(length, 1))
    assert float(row_SK.sum()) == pytest.approx(1, abs=1e-5)
    assert largest.elements <= BLOCK_PAIRS


def test_progress_is_told_and_stops() -> None:
    truth = last_layer(Case(id="45 tokens", queries=45, keys=45))
    told: list[float] = []
    mixed_of(truth, by_value=False).before(torch.ones(1, 45), told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0

    def stop(share: float) -> None:
        raise JobCancelled(str(share))

    with pytest.raises(JobCancelled):
        mixed_of(truth, by_value=True).after(torch.ones(45, 1), stop)
