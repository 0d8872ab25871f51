import math

import pytest
import torch

from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.scores import scores, visible


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_scores_are_scaled_products_then_capped(softcap: float | None) -> None:
    q, k = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0], [-1.0, 0.5]])
    raw = [0.5 * 11.0, 0.5 * 0.0]
    expected = raw if softcap is None else [softcap * math.tanh(r / softcap) for r in raw]
    found = scores(q, k, scale=0.5, softcap=softcap)
    torch.testing.assert_close(found, torch.tensor([expected]))


@pytest.mark.parametrize(
    ("dtype", "accumulated"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_scores_are_summed_wide(dtype: torch.dtype, accumulated: torch.dtype) -> None:
    q, k = torch.full((1, 1, 512), 1.0, dtype=dtype), torch.ones(3, 4, 512, dtype=dtype)
    found = scores(q, k, scale=1.0, softcap=None)
    assert found.dtype == accumulated
    assert found.shape == (3, 1, 4)
    assert (found == 512).all()


def test_inputs_are_left_as_they_were() -> None:
    q, k = torch.ones(2, 4), torch.ones(3, 4)
    scores(q, k, scale=0.1, softcap=5.0)
    assert (q == 1).all()
    assert (k == 1).all()


def test_visible_is_the_rule_and_the_padding_over_a_rectangle() -> None:
    kept_BK = torch.tensor([[True] * 10, [False] * 4 + [True] * 6])
    rows, columns = range(3, 6), range(2, 7)
    found = visible(pattern("causal"), rows, columns, kept_BK)
    assert found.shape == (2, 3, 5)
    for b in range(2):
        for r, i in enumerate(rows):
            for c, j in enumerate(columns):
                assert found[b, r, c] == (j <= i and bool(kept_BK[b, j]))
    chosen = torch.tensor([5, 3]), torch.tensor([6, 2, 4])
    assert torch.equal(
        visible(pattern("causal"), *chosen, kept_BK),
        found[:, [2, 0]][:, :, [4, 0, 2]],
    )


def test_visible_without_padding_is_the_pattern_alone() -> None:
    found = visible(pattern("full"), range(2), range(3))
    assert found.shape == (2, 3)
    assert found.all()
