"""Fitted patterns against every pattern of their kind, at sizes where all can be tried; and planted ones.

Q, K positions.
"""

from itertools import chain, combinations, product
from typing import Any

import pytest
import torch
from torch import Tensor

from attnscope.kernels import fitted as module
from attnscope.kernels.errors import InvalidCall, JobCancelled
from attnscope.kernels.fitted import fitted
from attnscope.kernels.head import Head
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.patterns.pattern import Pattern
from tests.heads import LargestTensor, truths
from tests.shapes import Case


def head_of(scores_QK: Tensor, own: Pattern, **others: Any) -> Head:
    """A head with these scores: its keys are the axes, and its queries the scores."""
    keys = scores_QK.shape[1]
    position = torch.arange(keys)
    offset = keys - len(scores_QK)
    seen_QK = own.visible(position[offset:, None], position[None])
    if others.get("visible_keys_K") is not None:
        seen_QK = seen_QK & others["visible_keys_K"]
    return Head(
        q_QD=scores_QK,
        k_KD=torch.eye(keys),
        lse_Q=scores_QK.masked_fill(~seen_QK, -torch.inf).logsumexp(1),
        pattern=own,
        query_offset=offset,
        scale=1.0,
        **others,
    )


def drawn(queries: int, keys: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(queries, keys, generator=torch.Generator().manual_seed(seed))


def mass_and_pairs(head: Head, tried: Pattern) -> tuple[float, int]:
    """The mean share of a query's mass, and the pairs, that a pattern keeps; all in one array."""
    position = torch.arange(head.key_length)
    query_Q1 = position[head.query_offset :, None]
    own_QK = head.pattern.visible(query_Q1, position)
    kept_QK = own_QK & tried.visible(query_Q1, position)
    weights_QK = head.q_QD.double().masked_fill(~own_QK, -torch.inf).softmax(1)
    return float((weights_QK * kept_QK).sum(1).mean()), int(kept_QK.sum())


def budget_of(head: Head, share: float) -> int:
    return int(share * mass_and_pairs(head, pattern("full"))[1])


def subsets(count: int) -> list[tuple[int, ...]]:
    return list(chain.from_iterable(combinations(range(count), n) for n in range(count + 1)))


def by_key(found: tuple[Pattern, ...]) -> dict[str, Pattern]:
    return {each.key: each for each in found}


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("own", [pattern("causal"), pattern("full")], ids=str)
@pytest.mark.parametrize("queries", [12, 7])
def test_no_a_shape_within_the_budget_keeps_more(own: Pattern, share: float, queries: int) -> None:
    head = head_of(drawn(queries, 12), own)
    found = by_key(fitted(head, share))["sinks_window"]
    every = [
        mass_and_pairs(head, pattern("sinks_window", window=window, sinks=sinks))
        for window, sinks in product(range(1, 13), range(13))
    ]
    most = max(mass for mass, pairs in every if pairs <= budget_of(head, share))
    mass, pairs = mass_and_pairs(head, found)
    assert pairs <= budget_of(head, share)
    assert mass == pytest.approx(most, abs=1e-6)


def test_columns_and_diagonals_keep_nearly_as_much_as_the_best_of_all_sets() -> None:
    position = torch.arange(6)
    sets = torch.stack([torch.isin(position, torch.tensor(some)) for some in subsets(6)])
    away = position[:, None] - position
    lines = sets[:, None, None] | sets[sets[:, 0]][:, away.clamp(min=0)]
    every = (lines & (away >= 0)).flatten(0, 1).flatten(1)
    ratios = []
    for seed, share in product(range(6), (0.4, 0.6, 0.8)):
        head = head_of(drawn(6, 6, seed), pattern("causal"))
        weights = head.q_QD.double().masked_fill(away < 0, -torch.inf).softmax(1) / 6
        fits = every.sum(1) <= budget_of(head, share)
        most = float((every[fits].double() @ weights.flatten()).max())
        found = by_key(fitted(head, share))["vertical_slash"]
        mass, pairs = mass_and_pairs(head, found)
        assert 0 in found.parameters["diagonals"]
        assert pairs <= budget_of(head, share)
        ratios.append(mass / most)
    # Of 21 pairs with no structure, filled one by one: the hardest there is, and still near the best.
    assert min(ratios) > 0.7
    assert sum(ratios) / len(ratios) > 0.88


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_no_blocks_within_the_budget_keep_more(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCKS", (4,))
    head = head_of(drawn(16, 16), pattern("full"))
    found = by_key(fitted(head, share))["block_list"]
    others = [(row, column) for row, column in product(range(4), range(4)) if row != column]
    room = budget_of(head, share) // 16 - 4
    most = max(
        mass_and_pairs(
            head,
            pattern(
                "block_list",
                block=4,
                rows=[[c for r, c in [*chosen, (row, row)] if r == row] for row in range(4)],
            ),
        )[0]
        for chosen in combinations(others, room)
    )
    mass, pairs = mass_and_pairs(head, found)
    assert pairs == 16 * (room + 4)
    assert mass == pytest.approx(most, abs=1e-6)


def planted(seen: Pattern, length: int) -> Tensor:
    position = torch.arange(length)
    return drawn(length, length) / 10 + 9.0 * seen.visible(position[:, None], position[None])


def test_planted_columns_and_diagonals_are_found() -> None:
    lines = pattern("vertical_slash", columns=(0, 17), diagonals=(0, 5, 30))
    head = head_of(planted(lines, 90), pattern("causal"))
    kept = mass_and_pairs(head, lines)[1]
    share = (kept + 0.5) / mass_and_pairs(head, pattern("full"))[1]
    assert by_key(fitted(head, share))["vertical_slash"] == lines


def test_planted_blocks_are_found() -> None:
    blocks = pattern("block_list", block=8, rows=((0,), (1,), (0, 2), (3,), (1, 4), (5,)))
    head = head_of(planted(blocks, 48), pattern("causal"))
    share = (mass_and_pairs(head, blocks)[1] + 0.5) / (48 * 49 / 2)
    # Blocks of 64, 32 and 16 tokens have no room for every query's own.
    assert by_key(fitted(head, share))["block_list"] == blocks


def test_a_planted_a_shape_is_found() -> None:
    shape = pattern("sinks_window", window=7, sinks=4)
    head = head_of(planted(shape, 60), pattern("causal"))
    share = (mass_and_pairs(head, shape)[1] + 0.5) / mass_and_pairs(head, pattern("full"))[1]
    assert by_key(fitted(head, share))["sinks_window"] == shape


def test_padding_and_a_window_of_the_layer_are_kept_out() -> None:
    shown_K = torch.arange(40) >= 6
    own = pattern("sliding_window", window=20)
    head = head_of(drawn(40, 40), own, visible_keys_K=shown_K)
    found = by_key(fitted(head, 0.4))
    assert min(found["vertical_slash"].parameters["columns"], default=40) >= 6
    assert max(found["vertical_slash"].parameters["diagonals"]) < 20


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    head = next(truths(Case(id="rows", queries=200, keys=200))).head
    whole = fitted(head, 0.3)
    monkeypatch.setattr(module, "BLOCK_PAIRS", 2000)
    shares: list[float] = []
    with LargestTensor() as seen:
        assert fitted(head, 0.3, progress=shares.append) == whole
    assert seen.elements < 200 * 100
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_where_there_is_no_room_for_its_first_a_kind_is_left_out() -> None:
    head = head_of(drawn(64, 64), pattern("causal"))
    assert set(by_key(fitted(head, 0.05))) == {"sinks_window", "vertical_slash"}
    assert fitted(head, 0.001) == ()


def test_budgets_out_of_range_are_refused() -> None:
    head = head_of(drawn(8, 8), pattern("causal"))
    with pytest.raises(InvalidCall, match="above 0 and at most 1"):
        fitted(head, 1.5)
    with pytest.raises(InvalidCall, match="keeps none of the 36"):
        fitted(head, 0.01)


def test_progress_cancels() -> None:
    def cancel(_: float) -> None:
        raise JobCancelled("enough")

    with pytest.raises(JobCancelled):
        fitted(head_of(drawn(8, 8), pattern("causal")), 0.5, progress=cancel)
