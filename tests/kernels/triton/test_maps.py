"""The maps' own functions with Triton demanded, against dense float64 and PyTorch, in the interpreter."""

from itertools import product
from typing import Any

import pytest
import torch

from attnscope.kernels import cells, maps
from attnscope.kernels.errors import UnsupportedCall
from attnscope.kernels.patterns.predicate import Predicate
from attnscope.kernels.triton import maps_plan
from tests.heads import truths
from tests.kernels.triton.test_maps_cells import strided
from tests.layers import last_layer
from tests.shapes import Case, every_case

CLOSE = {"rtol": 1e-5, "atol": 1e-5, "equal_nan": True}
CASES = ("causal", "sinks and window", "rows that see nothing", "everything at once")
REDUCTIONS: tuple[maps.Reduce, ...] = ("mean", "max", "sum")
READINGS: tuple[maps.Reading, ...] = ("weight", "score", "value_weighted")


@every_case(*CASES)
def test_an_exact_tile_of_any_rectangle(case: Case) -> None:
    truth = list(truths(case))[-1]
    length, width = truth.seen_QK.shape
    queries, keys = slice(length // 3, length // 3 + 5), slice(width // 2, width)
    for reading in READINGS:
        tile = maps.tile(truth.head, queries, keys, reading=reading, by="triton")
        torch.testing.assert_close(tile.double(), truth.reading(reading)[queries, keys], **CLOSE)


@every_case(*CASES)
def test_pooled_maps_say_what_pytorchs_say(case: Case) -> None:
    truth = list(truths(case))[-1]
    part: dict[str, Any] = {"queries": slice(1, 11), "keys": slice(3, 25)}
    for reduce, reading in [*product(REDUCTIONS, ["weight"]), ("mean", "score")]:
        ours = maps.pooled(truth.head, 3, 4, reduce=reduce, reading=reading, **part, by="triton")
        theirs = maps.pooled(truth.head, 3, 4, reduce=reduce, reading=reading, **part, by="torch")
        torch.testing.assert_close(ours.values, theirs.values, **CLOSE)
        assert torch.equal(ours.visible_share, theirs.visible_share)
        assert torch.equal(ours.row_edges, theirs.row_edges)
        assert torch.equal(ours.column_edges, theirs.column_edges)
        assert ours.sampled_rows is None


@every_case("multi-query", "everything at once")
def test_an_overview_says_what_pytorchs_says(case: Case) -> None:
    truth = last_layer(case)
    layer = truth.layer
    heard: list[float] = []
    ours, theirs = (
        maps.overview(
            layer.q_HQD,
            layer.k_GKD,
            truth.lse_HQ,
            pattern=layer.pattern,
            query_offset=layer.query_offset,
            scale=layer.scale,
            softcap=layer.softcap,
            visible_keys_K=layer.visible_keys_K,
            size=8,
            by=by,
            progress=heard.append if by == "triton" else None,
        )
        for by in ("triton", "torch")
    )
    torch.testing.assert_close(ours.values, theirs.values, **CLOSE)
    assert torch.equal(ours.visible_share, theirs.visible_share)
    assert heard[-1] == 1.0


def test_nothing_is_run_in_the_place_of_what_was_demanded(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise AssertionError("PyTorch computed")

    monkeypatch.setattr(cells, "Pooler", fails)
    truth = next(truths(Case(id="demanded", query_heads=2, kv_heads=1)))
    maps.pooled(truth.head, 3, 3, by="triton")
    with pytest.raises(AssertionError, match="PyTorch computed"):
        maps.pooled(truth.head, 3, 3)


def test_a_pattern_whose_masks_do_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps_plan, "MOST_MASK_BYTES", 64)
    rule = Predicate(function=lambda query, key: strided(query, key), label="my rule")
    truth = next(truths(Case(id="no structure", pattern=rule)))
    with pytest.raises(UnsupportedCall, match="'my rule' divides its tiles"):
        maps.pooled(truth.head, 3, 3, by="triton")
