"""Summands of attention scores taken apart: exactly, or refused."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnscope.kernels.errors import UnsupportedCall
from attnscope.kernels.patterns.causal import Causal
from attnscope.kernels.patterns.full import Full
from attnscope.models.attention_arguments import Asked, read
from attnscope.models.masks import Mask, MaskRule
from attnscope.models.score_bias import Added, taken_apart

HEADS, QUERIES, KEYS = 4, 5, 7
LOWEST = torch.finfo(torch.float32).min
RULE = MaskRule(
    Mask(patterns=(Full(),), query_offset=2, visible_keys_BK=None),
    torch.Size((2, 1, QUERIES, KEYS)),
    torch.device("cpu"),
    "toy",
)


def table(heads: int = HEADS) -> Tensor:
    return torch.randn(heads, QUERIES + KEYS - 1, generator=torch.Generator().manual_seed(1))


def spread(table_HR: Tensor) -> Tensor:
    """A number for each pair, by a loop over them: `[1, H, Q, K]`."""
    spread_HQK = torch.empty(len(table_HR), QUERIES, KEYS)
    for query in range(QUERIES):
        for key in range(KEYS):
            spread_HQK[:, query, key] = table_HR[:, key - query + QUERIES - 1]
    return spread_HQK[None]


def test_a_bias_that_is_learned_is_refused_while_gradients_are_on() -> None:
    learned = spread(table()).requires_grad_()
    asked: dict[str, Any] = {"heads": HEADS, "lengths": (QUERIES, KEYS), "architecture": "toy"}
    with pytest.raises(UnsupportedCall, match="learns its position_bias"):
        taken_apart(learned, name="position_bias", **asked)
    with torch.no_grad():
        assert taken_apart(learned, name="position_bias", **asked).distance_bias_HR is not None


def causal() -> Tensor:
    return torch.ones(QUERIES, KEYS, dtype=torch.bool).tril(KEYS - QUERIES)


def apart(summands: object) -> Added:
    return taken_apart(
        summands, heads=HEADS, lengths=(QUERIES, KEYS), architecture="toy", name="position_bias"
    )


def asked(mask: object, bias: object) -> Asked:
    q, k = torch.zeros(2, HEADS, QUERIES, 8), torch.zeros(2, 2, KEYS, 8)
    return read(nn.Module(), (q, k, k), mask, {"position_bias": bias}, "toy")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_bias_by_distance_is_read_off_exactly(dtype: torch.dtype, batch: int) -> None:
    added = apart(spread(table()).to(dtype).expand(batch, -1, -1, -1))
    assert added.seen_BHQK is None
    assert added.distance_bias_HR is not None
    assert torch.equal(added.distance_bias_HR, table().to(dtype).float())


def test_one_for_all_heads_is_each_s_and_longer_ones_are_cropped() -> None:
    one = torch.nn.functional.pad(spread(table(1)), (0, 3), value=9.0)
    found = apart(one).distance_bias_HR
    assert found is not None
    assert torch.equal(found, table(1).expand(HEADS, -1))


def test_zeros_are_no_bias() -> None:
    assert apart(torch.zeros(1, HEADS, QUERIES, KEYS)) == Added(
        seen_BHQK=None, distance_bias_HR=None
    )


@pytest.mark.parametrize("lowest", [LOWEST, -torch.inf])
def test_a_mask_merged_into_the_bias_is_split_off(lowest: float) -> None:
    """Distances that are wholly hidden are given 0, which nothing reads."""
    added = apart(spread(table()).masked_fill(~causal(), lowest))
    assert added.seen_BHQK is not None
    assert torch.equal(added.seen_BHQK, causal().expand(1, HEADS, -1, -1))
    future = QUERIES - 1 + KEYS - QUERIES + 1
    expected_HR = table().clone()
    expected_HR[:, future:] = 0
    assert added.distance_bias_HR is not None
    assert torch.equal(added.distance_bias_HR, expected_HR)


@pytest.mark.parametrize("place", ["attention_mask", "position_bias"])
def test_wherever_it_is_merged_the_mask_is_recognised(place: str) -> None:
    merged = spread(table()) + torch.zeros(QUERIES, KEYS).masked_fill(~causal(), LOWEST)
    found = asked(merged, None) if place == "attention_mask" else asked(None, merged)
    assert found.mask.patterns == (Causal(),)
    assert found.distance_bias_HR is not None


def test_summands_of_both_are_summed_and_their_masks_joined() -> None:
    hidden = torch.zeros(1, 1, QUERIES, KEYS)
    hidden[..., 6] = LOWEST
    found = asked(spread(table()) + hidden, spread(table()).masked_fill(~causal(), LOWEST))
    assert found.mask.visible_keys_BK is not None
    assert found.mask.visible_keys_BK.tolist() == [[True] * 6 + [False]]
    assert found.distance_bias_HR is not None
    assert torch.equal(found.distance_bias_HR[:, 2:6], 2 * table()[:, 2:6])


def test_a_bias_beside_a_rule() -> None:
    found = asked(RULE, spread(table()))
    assert found.mask is RULE.mask
    assert found.distance_bias_HR is not None
    assert torch.equal(found.distance_bias_HR, table())


def test_an_additive_mask_without_a_bias_is_a_mask() -> None:
    found = asked(torch.zeros(QUERIES, KEYS).masked_fill(~causal(), LOWEST)[None, None], None)
    assert found.mask.patterns == (Causal(),)
    assert found.distance_bias_HR is None
    assert asked(torch.zeros(1, 1, QUERIES, KEYS), None).mask.patterns == (Full(),)


def test_without_numbers_there_is_room_for_one() -> None:
    found = apart(torch.zeros(1, HEADS, QUERIES, KEYS, device="meta")).distance_bias_HR
    assert found is not None
    assert found.shape == (HEADS, QUERIES + KEYS - 1)


def _changed(at: tuple[int, int, int, int], by: float) -> Tensor:
    changed = spread(table()).repeat(2, 1, 1, 1)
    changed[at] += by
    return changed


@pytest.mark.parametrize(
    ("summands", "words"),
    [
        # The least difference, of a head, of a sequence.
        (_changed((0, 3, 2, 2), 1e-6), "no function of the distance"),
        (_changed((1, 0, 4, 0), 0.5), "no function of the distance"),
        (_changed((0, 0, 1, 1), torch.nan), "no function of the distance"),
        (torch.randn(1, 1, 1, KEYS), "no function of the distance"),
        (spread(table(2)), "no function of the distance"),
        (torch.zeros(1, HEADS, QUERIES + 1, KEYS), "has no meaning"),
        (torch.zeros(HEADS, QUERIES, KEYS), "has no meaning"),
        (torch.zeros(1, HEADS, QUERIES, KEYS).long(), "position_bias of torch.int64"),
        (0.5, "position_bias of float"),
    ],
)
def test_what_is_no_bias_by_distance_is_refused(summands: object, words: str) -> None:
    with pytest.raises(UnsupportedCall, match=words):
        apart(summands)


def test_a_merged_mask_beside_a_rule_is_refused() -> None:
    with pytest.raises(UnsupportedCall, match="toy hides pairs through its position bias"):
        asked(RULE, spread(table()).masked_fill(~causal(), LOWEST))
