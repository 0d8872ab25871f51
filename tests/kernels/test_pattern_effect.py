"""Mass and error of patterns, against dense float64 attention over the pairs that are left.

H query heads, Q, K positions, V value dim.
"""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from attnscope.kernels import pattern_effect
from attnscope.kernels.errors import InvalidCall, JobCancelled
from attnscope.kernels.pattern_effect import effects
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.patterns.pattern import Pattern
from tests.heads import LargestTensor
from tests.layers import LayerTruth, last_layer, layer_truths
from tests.shapes import Case, every_case

CLOSE: dict[str, Any] = {"rtol": 2e-5, "atol": 2e-5}
PATTERNS = (
    pattern("full"),
    pattern("sliding_window", window=1),
    pattern("local", window=9, causal=True),
    pattern("sinks_window", window=4, sinks=2),
    pattern("strided", stride=3),
    pattern("longformer", window=4, global_tokens=1),
    pattern("chunked", chunk=8),
)


def expected(truth: LayerTruth, v_GKV: Tensor, tried: Pattern) -> tuple[Tensor, Tensor, float, int]:
    """Mass, error, share of pairs and empty queries, from n × n arrays in float64."""
    layer, seen_QK = truth.layer, truth.seen_QK
    query_Q = torch.arange(layer.query_length) + layer.query_offset
    key_K = torch.arange(layer.key_length)
    kept_QK = seen_QK & tried.visible(query_Q[:, None], key_K[None])
    own_QK = layer.pattern.visible(query_Q[:, None], key_K[None]).expand(seen_QK.shape)
    padded_Q = torch.zeros(len(query_Q), dtype=torch.bool)
    if layer.visible_keys_K is not None:
        inside = query_Q < layer.key_length
        padded_Q[inside] = ~layer.visible_keys_K[query_Q[inside]]
    counts_Q = seen_QK.any(1) & ~padded_Q
    v_HKV = v_GKV.double().repeat_interleave(layer.heads // len(v_GKV), 0)
    dense_HQV = outputs(truth, seen_QK, v_HKV)[:, counts_Q]
    sparse_HQV = outputs(truth, kept_QK, v_HKV)[:, counts_Q]
    weights_HQK = truth.scores_HQK.masked_fill(~seen_QK, -torch.inf).softmax(-1)
    mass_H = (weights_HQK * kept_QK).sum(-1)[:, counts_Q].mean(-1)
    error_H = (sparse_HQV - dense_HQV).flatten(1).norm(dim=1) / dense_HQV.flatten(1).norm(dim=1)
    pairs = own_QK & tried.visible(query_Q[:, None], key_K[None])
    empty = counts_Q & ~kept_QK.any(1)
    return mass_H, error_H, float(pairs.sum() / own_QK.sum()), int(empty.sum())


def outputs(truth: LayerTruth, seen_QK: Tensor, v_HKV: Tensor) -> Tensor:
    scores_HQK = truth.scores_HQK.masked_fill(~seen_QK, -torch.inf)
    if truth.sinks_H is not None:
        sink_HQ1 = truth.sinks_H.double()[:, None, None].expand(*scores_HQK.shape[:2], 1)
        scores_HQK = torch.cat([scores_HQK, sink_HQ1], -1)
    weights_HQK = scores_HQK.softmax(-1).nan_to_num()[..., : seen_QK.shape[1]]
    return weights_HQK @ v_HKV


def fits(tried: Pattern, truth: LayerTruth) -> bool:
    """Whether the case leaves the pattern something to see, and its window is no longer than it."""
    layer = truth.layer
    query_Q1 = torch.arange(layer.query_length)[:, None] + layer.query_offset
    key_1K = torch.arange(layer.key_length)[None]
    kept_QK = layer.pattern.visible(query_Q1, key_1K) & tried.visible(query_Q1, key_1K)
    return tried.parameters.get("window", 0) <= layer.key_length and bool(kept_QK.any())


def assert_right(truth: LayerTruth, v_GKV: Tensor, tried: tuple[Pattern, ...]) -> None:
    found = effects(truth.layer, truth.lse_HQ, v_GKV, tried, sinks_H=truth.sinks_H)
    assert [effect.pattern for effect in found] == list(tried)
    for effect in found:
        mass_H, error_H, share, empty = expected(truth, v_GKV, effect.pattern)
        torch.testing.assert_close(effect.mass_H.double(), mass_H, **CLOSE, equal_nan=True)
        torch.testing.assert_close(effect.error_H.double(), error_H, **CLOSE, equal_nan=True)
        assert effect.kept_share == pytest.approx(share)
        assert effect.empty_queries == empty


@every_case(biased=True)
def test_mass_and_error_are_those_of_dense_attention_over_what_is_left(case: Case) -> None:
    made = case.inputs()
    for item, truth in enumerate(layer_truths(made)):
        tried = tuple(one for one in PATTERNS if fits(one, truth))
        assert_right(truth, made.v_BGKD[item], tried)


def test_many_tiles_and_runs_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pattern_effect, "TILE_ROWS", 7)
    monkeypatch.setattr(pattern_effect, "BLOCK_KEYS", 8)
    monkeypatch.setattr(pattern_effect, "LEAST_GAP", 2)
    case = Case(id="tiles", queries=40, keys=40, sinks=True)
    assert_right(last_layer(case), case.inputs().v_BGKD[0], PATTERNS)


def test_a_row_whose_keys_hold_next_to_nothing_is_renormalised_all_the_same() -> None:
    made = Case(id="faint", queries=16, keys=16).inputs()
    made.q_BHQD[..., 0] = 40.0
    made.k_BGKD[..., 0] = 0.0
    # All queries score the first key at 400: every other one has less than e^-300 of the mass.
    made.k_BGKD[:, :, 0, 0] = 40.0
    assert_right(next(layer_truths(made)), made.v_BGKD[0], (pattern("sliding_window", window=3),))


def test_a_row_faint_by_its_bias_is_renormalised_with_its_bias() -> None:
    case = Case(id="faint", queries=300, keys=300, query_heads=2, kv_heads=1, distance_bias=True)
    made = case.inputs()
    assert made.distance_bias_HR is not None
    # Keys 40 tokens back score 400 above all others, and the window does not reach them.
    made.distance_bias_HR[:, 299 - 40] += 400.0
    assert_right(next(layer_truths(made)), made.v_BGKD[0], (pattern("sliding_window", window=3),))


def test_nothing_of_queries_by_keys_is_held() -> None:
    case = Case(id="memory", queries=1024, keys=1024, query_heads=2, kv_heads=1)
    truth = last_layer(case)
    with LargestTensor() as seen:
        effects(truth.layer, truth.lse_HQ, case.inputs().v_BGKD[0], PATTERNS[:4])
    assert seen.elements < 2 * 1024 * 1024


@pytest.mark.parametrize(
    ("tried", "message"),
    [
        (pattern("sliding_window", window=34), "window of 34 is longer than the 33 tokens"),
        (pattern("axial", height=4, width=8), "32 places"),
        (pattern("matrix", matrix=np.zeros((33, 33), bool)), "anything to see"),
        (pattern("matrix", matrix=np.ones((32, 33), bool)), "32 queries and 33 keys"),
    ],
)
def test_a_pattern_that_does_not_fit_is_refused_before_anything_runs(
    tried: Pattern, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = last_layer(Case(id="refused"))
    monkeypatch.setattr(pattern_effect, "exponentials", lambda _: pytest.fail("it ran"))
    with pytest.raises(InvalidCall, match=message):
        effects(truth.layer, truth.lse_HQ, truth.layer.k_GKD, [PATTERNS[0], tried])


def test_values_of_another_length_are_refused() -> None:
    truth = last_layer(Case(id="values"))
    with pytest.raises(InvalidCall, match=r"\(2, 32, 16\)"):
        effects(truth.layer, truth.lse_HQ, truth.layer.k_GKD[:, 1:], PATTERNS)


def test_progress_is_told_and_cancels() -> None:
    truth = last_layer(Case(id="progress"))
    shares: list[float] = []
    effects(truth.layer, truth.lse_HQ, truth.layer.k_GKD, PATTERNS[:1], progress=shares.append)
    assert shares == [1.0]

    def cancel(_: float) -> None:
        raise JobCancelled("enough")

    with pytest.raises(JobCancelled):
        effects(truth.layer, truth.lse_HQ, truth.layer.k_GKD, PATTERNS[:1], progress=cancel)
