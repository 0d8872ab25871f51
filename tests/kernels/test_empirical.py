"""Empirical masks against sorted rows of dense float64 weights.

Q, K positions.
"""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from attnscope.kernels import empirical
from attnscope.kernels.empirical import EmpiricalMask, KeyRule, empirical_mask
from attnscope.kernels.errors import InvalidCall, JobCancelled
from tests.heads import LargestTensor, Truth, truths
from tests.shapes import Case, every_case

RULES = (
    KeyRule(kind="threshold", value=0.05),
    KeyRule(kind="threshold", value=0.3),
    KeyRule(kind="top_k", value=1),
    KeyRule(kind="top_k", value=5),
    KeyRule(kind="top_k", value=1000),
    KeyRule(kind="mass", value=0.5),
    KeyRule(kind="mass", value=0.95),
)


def expected(truth: Truth, rule: KeyRule) -> Tensor:
    """Which pairs are kept, row by row."""
    kept_QK = torch.zeros_like(truth.seen_QK)
    for query, weights_K in enumerate(truth.weights_QK):
        order = weights_K.argsort(descending=True)[: int(truth.seen_QK[query].sum())]
        if rule.kind == "threshold":
            order = order[weights_K[order] >= rule.value]
        elif rule.kind == "top_k":
            order = order[: int(rule.value)]
        else:
            held, wanted = 0.0, rule.value * float(weights_K.sum())
            count = 0
            while count < len(order) and held < wanted:
                held += float(weights_K[order[count]])
                count += 1
            order = order[:count]
        kept_QK[query, order] = True
    return kept_QK


def assert_right(found: EmpiricalMask, truth: Truth, kept_QK: Tensor) -> None:
    assert torch.equal(found.tile(), kept_QK)
    assert torch.equal(found.kept_Q, kept_QK.sum(1))
    assert torch.equal(found.visible_Q, truth.seen_QK.sum(1))
    mass_Q = (truth.weights_QK * kept_QK).sum(1) / truth.weights_QK.sum(1)
    torch.testing.assert_close(found.mass_Q.double(), mass_Q, rtol=0, atol=1e-5, equal_nan=True)
    assert found.kept_share == pytest.approx(float(kept_QK.sum() / truth.seen_QK.sum()))


@every_case()
def test_masks_are_those_of_sorted_dense_rows(case: Case) -> None:
    for truth in truths(case):
        for rule in RULES:
            assert_right(empirical_mask(truth.head, rule), truth, expected(truth, rule))


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (5, 7), (99, 99)])
def test_a_picture_is_the_share_kept_of_each_cell(rows: int, columns: int) -> None:
    case = Case(id="picture", batch=2, padding="left")
    for truth, rule in zip(truths(case), RULES, strict=False):
        found = empirical_mask(truth.head, rule)
        picture = found.pooled(rows, columns, queries=slice(3, 30), keys=slice(1, None))
        for row, (top, bottom) in enumerate(pairwise(picture.row_edges.tolist())):
            for column, (left, right) in enumerate(pairwise(picture.column_edges.tolist())):
                kept = float(expected(truth, rule)[top:bottom, left:right].sum())
                visible = float(truth.seen_QK[top:bottom, left:right].sum())
                area = (bottom - top) * (right - left)
                share = float(picture.values[row, column])
                assert share == pytest.approx(kept / visible if visible else torch.nan, nan_ok=True)
                assert float(picture.visible_share[row, column]) == pytest.approx(visible / area)


def test_many_blocks_of_rows_and_no_array_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(empirical, "BLOCK_PAIRS", 1200)
    truth = next(truths(Case(id="blocks", queries=300, keys=300)))
    shares: list[float] = []
    with LargestTensor() as seen:
        found = empirical_mask(truth.head, RULES[3], progress=shares.append)
        picture = found.pooled(10, 10, progress=shares.append)
    assert seen.elements < 300 * 100
    assert_right(found, truth, expected(truth, RULES[3]))
    assert float(picture.values[0, 0]) > float(picture.values[9, 0])
    assert shares.count(1.0) == 2
    assert len(shares) == 150


def test_the_mean_mass_leaves_out_what_is_padding() -> None:
    truth = list(truths(Case(id="mean", batch=2, padding="right")))[-1]
    found = empirical_mask(truth.head, RULES[2])
    shown_K = truth.head.visible_keys_K
    assert shown_K is not None
    assert found.mass == pytest.approx(float(found.mass_Q[shown_K].mean()))
    assert found.mass != pytest.approx(float(found.mass_Q.mean()))


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("threshold", 0.0, "above 0"),
        ("threshold", 1.5, "at most 1"),
        ("mass", 0.0, "above 0"),
        ("mass", float("nan"), "above 0"),
        ("top_k", 0, "whole number"),
        ("top_k", 2.5, "whole number"),
        ("top_p", 0.5, "threshold, top_k, mass"),
    ],
)
def test_a_rule_out_of_range_is_refused(kind: Any, value: float, message: str) -> None:
    with pytest.raises(InvalidCall, match=message):
        KeyRule(kind=kind, value=value)


def test_a_picture_without_cells_is_refused() -> None:
    found = empirical_mask(next(truths(Case(id="cells"))).head, RULES[0])
    with pytest.raises(InvalidCall, match="at least one row"):
        found.pooled(0, 4)
    with pytest.raises(InvalidCall, match="a region needs"):
        found.pooled(4, 4, keys=slice(5, 5))


def test_progress_cancels() -> None:
    def cancel(_: float) -> None:
        raise JobCancelled("enough")

    with pytest.raises(JobCancelled):
        empirical_mask(next(truths(Case(id="stop"))).head, RULES[0], progress=cancel)
