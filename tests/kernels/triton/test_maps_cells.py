"""The cells of maps by Triton, against dense float64 attention and PyTorch's maps, in the interpreter."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from triton.runtime.interpreter import InterpreterBuilder

from attnscope.kernels.bins import bin_edges
from attnscope.kernels.cells import Asked, cells
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.patterns.predicate import Predicate
from attnscope.kernels.triton import maps_cells
from attnscope.kernels.triton.configurations import FlashConfig
from attnscope.kernels.triton.maps_cells import coarser, map_cells, visible_pairs
from tests.layers import LayerTruth, last_layer, layer_truths
from tests.shapes import Case, every_case
from tests.tolerance import assert_as_good_as

# Small enough that every case has several tiles either way.
SMALL = FlashConfig(block_queries=16, block_keys=16, num_warps=4, num_stages=1)


def strided(query: Tensor, key: Tensor) -> Tensor:
    return (key <= query) & ((query - key) % 5 == 0)


def blocks_of_four(query: Tensor, key: Tensor) -> Tensor:
    near = (query // 4 - key // 4).abs() <= 1
    return near | ((query // 4 * 5 + key // 4 * 3) % 7 == 0) | (key < 4)


LISTED = (
    Case(id="strided", pattern=Predicate(function=strided, label="strided")),
    Case(
        id="blocks, padded",
        batch=2,
        queries=21,
        keys=50,
        padding="left",
        pattern=Predicate(function=blocks_of_four, label="blocks"),
    ),
)
LONGER = (
    Case(id="window over tiles", queries=70, keys=70, pattern=pattern("sliding_window", window=37)),
    Case(id="middle of a cache", queries=20, keys=90, query_offset=33),
    Case(
        id="first keys over tiles",
        queries=60,
        keys=60,
        pattern=pattern("sinks_window", window=9, sinks=19),
    ),
    Case(
        id="first keys over tiles, causal, padded",
        batch=2,
        queries=60,
        keys=60,
        padding="left",
        pattern=pattern("sinks_window", window=9, sinks=19, causal=True),
    ),
    Case(
        id="a window that left the keys behind",
        queries=40,
        keys=20,
        query_offset=10,
        pattern=pattern("sliding_window", window=9),
    ),
)


def edges_of(truth: LayerTruth, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    queries, keys = truth.seen_QK.shape
    return bin_edges(0, queries, min(rows, queries)), bin_edges(0, keys, min(columns, keys))


def assert_right(
    truth: LayerTruth,
    edges: tuple[Tensor, Tensor],
    reading: Any = "weight",
    config: FlashConfig | None = SMALL,
) -> None:
    """Sums, maxima and counts are as near the truth as PyTorch's, cell by cell."""
    norm_HK = truth.value_norm_HK if reading == "value_weighted" else None
    layer, lse_HQ = truth.layer, truth.lse_HQ
    found = map_cells(
        layer,
        lse_HQ,
        *edges,
        worth="score" if reading == "score" else "weight",
        norm_HK=norm_HK,
        maxima=True,
        config=config,
    )
    asked = Asked(
        layer=layer,
        lse_HQ=lse_HQ,
        row_edges=edges[0],
        column_edges=edges[1],
        reading=reading,
        value_norm_HK=norm_HK,
    )
    theirs = cells(asked, by="torch")
    pairs_MN = truth.pairs(*edges)
    assert torch.equal(visible_pairs(layer, *edges, config=config), pairs_MN)
    assert torch.equal(theirs.visible_MN, pairs_MN)
    assert_as_good_as(found.sums_HMN, truth.sums(*edges, reading), theirs.values_HMN)
    # Nothing seen is 0 for what is a weight, and below everything for a score.
    exact = truth.maxima(*edges, reading)
    exact = exact if reading == "score" else exact.clamp_min(0)
    assert_as_good_as(found.maxima_HMN, exact, exact.float() + _worst_pair(truth, asked))


def _worst_pair(truth: LayerTruth, asked: Asked) -> float:
    """By how much PyTorch's maps err at a pair: a maximum is one, and cells are few to judge by."""
    queries, keys = truth.seen_QK.shape
    every = {"row_edges": torch.arange(queries + 1), "column_edges": torch.arange(keys + 1)}
    theirs_HQK = cells(replace(asked, **every), by="torch").values_HMN
    wrong_HQK = theirs_HQK.double() - truth.worth(asked.reading)
    return wrong_HQK.masked_fill(~truth.seen_QK, 0.0).abs().max().item()


@every_case()
def test_cells_are_the_reference_pooled(case: Case) -> None:
    truth = last_layer(case)
    assert_right(truth, edges_of(truth, 5, 3))


@pytest.mark.parametrize("case", [*LONGER, *LISTED], ids=lambda case: case.id)
def test_over_many_tiles_and_under_any_pattern(case: Case) -> None:
    truth = last_layer(case)
    assert_right(truth, edges_of(truth, 3, 7))


@pytest.mark.parametrize("reading", ["score", "value_weighted"])
@every_case("causal", "sinks and window", "right padding", "everything at once")
def test_scores_and_weights_times_values(case: Case, reading) -> None:
    truth = last_layer(case)
    assert_right(truth, edges_of(truth, 4, 6), reading)


@pytest.mark.parametrize("shape", [(1, 33), (33, 1), (33, 33), (2, 2), (32, 11)])
def test_any_edges(shape: tuple[int, int]) -> None:
    truth = last_layer(Case(id="edges", query_heads=2, kv_heads=1))
    assert_right(truth, edges_of(truth, *shape))


def test_a_part_between_edges_of_its_own() -> None:
    truth = last_layer(Case(id="part", query_heads=2, kv_heads=1, queries=50, keys=50))
    assert_right(truth, (torch.tensor([7, 8, 20, 43]), torch.tensor([2, 9, 27, 28, 29])))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("head_dim", [80, 256])
def test_half_precision_and_wide_heads_as_they_ship(head_dim: int, dtype) -> None:
    case = Case(id="wide", query_heads=2, kv_heads=1, queries=70, keys=70, head_dim=head_dim)
    truth = last_layer(case, dtype)
    assert_right(truth, edges_of(truth, 3, 5), config=None)


@pytest.mark.parametrize("head_dim", [1, 96])
def test_single_precision_as_it_ships(head_dim: int) -> None:
    truth = last_layer(Case(id="single", query_heads=2, kv_heads=1, head_dim=head_dim))
    assert_right(truth, edges_of(truth, 4, 4), config=None)


def test_whole_tiles_are_read_without_a_mask_or_an_edge() -> None:
    truth = last_layer(Case(id="even", queries=64, keys=64, query_heads=2, kv_heads=1))
    assert_right(truth, edges_of(truth, 4, 4))
    assert_right(truth, (torch.tensor([0, 16, 32, 64]), torch.tensor([16, 32, 48])))


@every_case("sink logits", "rows that see nothing", "rows that see nothing but a sink", "softcap")
def test_a_row_of_sums_totals_its_queries_less_their_sinks(case: Case) -> None:
    for truth in layer_truths(case.inputs()):
        edges = edges_of(truth, 6, 4)
        found = map_cells(truth.layer, truth.lse_HQ, *edges, config=SMALL).sums_HMN
        on_keys_HQ = truth.seen_QK.any(-1).double().expand(truth.lse_HQ.shape)
        if truth.sinks_H is not None:
            sunk_HQ = (truth.sinks_H.double()[:, None] - truth.lse_HQ.double()).exp()
            on_keys_HQ = on_keys_HQ * (1 - sunk_HQ)
        exact = [on_keys_HQ[:, a:b].sum(1) for a, b in zip(edges[0], edges[0][1:], strict=False)]
        assert found is not None
        torch.testing.assert_close(found.sum(-1).double(), torch.stack(exact, 1), rtol=0, atol=1e-5)


def test_coarser_maps_are_the_finer_ones_added() -> None:
    truth = last_layer(Case(id="pyramid", queries=40, keys=48, query_heads=2, kv_heads=1))
    fine = map_cells(truth.layer, truth.lse_HQ, *edges_of(truth, 20, 24), maxima=True, config=SMALL)
    assert fine.sums_HMN is not None
    assert fine.maxima_HMN is not None
    for down, across in ((2, 2), (4, 6), (20, 24)):
        edges = edges_of(truth, 20 // down, 24 // across)
        summed = coarser(fine.sums_HMN, down, across)
        torch.testing.assert_close(summed.double(), truth.sums(*edges), rtol=1e-5, atol=1e-5)
        largest = coarser(fine.maxima_HMN, down, across, maximum=True)
        exact = truth.maxima(*edges).clamp_min(0)
        torch.testing.assert_close(largest.double(), exact, rtol=1e-5, atol=1e-5)


def test_heads_read_a_few_at_a_time_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = last_layer(Case(id="few", kv_heads=4))
    asked = (truth.layer, truth.lse_HQ, *edges_of(truth, 4, 4))
    whole = map_cells(*asked, norm_HK=truth.value_norm_HK, config=SMALL).sums_HMN
    monkeypatch.setattr(maps_cells, "MOST_PARTS", 1)
    heard: list[float] = []
    norms = {"norm_HK": truth.value_norm_HK, "config": SMALL}
    parts = map_cells(*asked, **norms, progress=heard.append).sums_HMN
    assert whole is not None
    assert parts is not None
    assert torch.equal(parts, whole)
    assert heard == [0.25, 0.5, 0.75, 1.0]


def test_padded_and_unvisited_keys_may_hold_anything() -> None:
    truth = last_layer(Case(id="poison", batch=2, queries=64, keys=64, padding="left"))
    window = replace(truth.layer, pattern=pattern("sliding_window", window=8, causal=True))
    assert window.visible_keys_K is not None
    hidden_K = ~window.visible_keys_K | (torch.arange(64) < 16)
    edges = (torch.tensor([40, 50, 64]), bin_edges(0, 64, 4))
    clean = map_cells(window, truth.lse_HQ, *edges, maxima=True, config=SMALL)
    poisoned = replace(window, k_GKD=window.k_GKD.masked_fill(hidden_K[:, None], torch.nan))
    found = map_cells(poisoned, truth.lse_HQ, *edges, maxima=True, config=SMALL)
    for mine, same in ((found.sums_HMN, clean.sums_HMN), (found.maxima_HMN, clean.maxima_HMN)):
        assert mine is not None
        assert same is not None
        assert torch.equal(mine, same)


@pytest.mark.parametrize("dimension", [0, 1], ids=["heads", "positions"])
def test_any_strides_and_offsets_past_two_to_the_31(dimension: int) -> None:
    truth = last_layer(Case(id="far", queries=33, keys=33), "float16")
    q_HQD, k_GKD = (_far_apart(t, dimension) for t in (truth.layer.q_HQD, truth.layer.k_GKD))
    far = replace(truth, layer=replace(truth.layer, q_HQD=q_HQD, k_GKD=k_GKD))
    assert_right(far, edges_of(truth, 3, 3), config=None)


def _far_apart(near: Tensor, dimension: int) -> Tensor:
    """A copy whose steps along one dimension pass 2³¹ elements; only what is touched costs memory."""
    strides = [near.shape[1] * near.shape[2] * 2, near.shape[2] * 2, 2]
    strides[dimension] = 2**31 // (near.shape[dimension] - 1) + 16
    if dimension == 1:
        strides[0] = near.shape[2] * 2
    length = 1 + sum((n - 1) * s for n, s in zip(near.shape, strides, strict=True))
    far = torch.from_numpy(np.empty(length, np.float16)).as_strided(near.shape, strides)
    assert (near.shape[dimension] - 1) * strides[dimension] > 2**31
    return far.copy_(near)


@pytest.mark.parametrize("window", [16, 64])
def test_work_is_proportional_to_the_window(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    products: list[int] = []
    original = InterpreterBuilder.create_dot

    def counted(*arguments: Any) -> Any:
        products.append(1)
        return original(*arguments)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", counted)
    rule = pattern("sliding_window", window=window)
    case = Case(id="long", query_heads=1, kv_heads=1, queries=256, keys=256, pattern=rule)
    truth = last_layer(case)
    map_cells(truth.layer, truth.lse_HQ, *edges_of(truth, 4, 4), config=SMALL)
    # One product a tile: those of the window, the block's own, and one that an edge cuts.
    most = 16 * (window // 16 + 2)
    assert most < 16 * 17 // 2
    assert 0 < len(products) <= most
