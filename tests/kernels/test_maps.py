import math
from itertools import pairwise, product
from typing import Any

import pytest
import torch

from attnscope.kernels import maps
from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.head import Head
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.reference import reference
from tests.heads import truths
from tests.shapes import Case, every_case

READINGS = ("weight", "score", "value_weighted")


def near(actual, exact, tolerance=1e-5):
    assert actual.dtype == torch.float32
    torch.testing.assert_close(
        actual.double(), exact, rtol=tolerance, atol=tolerance, equal_nan=True
    )
    return True


def spaced(region, bins):
    """Bin edges in exact arithmetic."""
    start, end = region
    return [start + bin * (end - start) // bins for bin in range(bins + 1)]


def pool_by_hand(truth, rows, columns, reduce, reading, queries, keys, read=None):
    """Every cell on its own: the visible pairs between two pairs of edges, of the queries read."""
    values, share = torch.full((rows, columns), math.nan).double(), torch.zeros(rows, columns)
    row_edges, column_edges = spaced(queries, rows), spaced(keys, columns)
    for m in range(rows):
        chosen = list(range(row_edges[m], row_edges[m + 1])) if read is None else read[m]
        for n in range(columns):
            across = slice(column_edges[n], column_edges[n + 1])
            seen = truth.seen_QK[chosen, across]
            share[m, n] = seen.float().mean()
            pairs = truth.reading(reading)[chosen, across][seen]
            if len(pairs):
                scaled = (row_edges[m + 1] - row_edges[m]) / len(chosen)
                values[m, n] = {
                    "mean": pairs.mean(),
                    "max": pairs.max(),
                    "sum": pairs.sum() * scaled,
                }[reduce]
    return values, share


@every_case(biased=True)
def test_a_whole_tile_is_the_reference(case: Case):
    for truth in truths(case):
        for reading in READINGS:
            whole = maps.tile(truth.head, slice(None), slice(None), reading=reading)
            assert near(whole, truth.reading(reading))
        assert torch.equal(maps.mask_tile(truth.head, slice(None), slice(None)), truth.seen_QK)


@every_case(biased=True)
def test_any_rectangle_row_and_column_is_cut_from_the_whole(case: Case):
    truth = next(truths(case))
    length, width = truth.seen_QK.shape
    queries, keys = slice(length // 3, length // 3 + 5), slice(width // 2, width)
    for reading in READINGS:
        exact = truth.reading(reading)
        assert near(maps.tile(truth.head, queries, keys, reading=reading), exact[queries, keys])
        assert near(maps.row(truth.head, length // 2, reading=reading), exact[length // 2])
        assert near(maps.column(truth.head, width // 2, reading=reading), exact[:, width // 2])
    assert torch.equal(maps.mask_tile(truth.head, queries, keys), truth.seen_QK[queries, keys])


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_other_dtypes_are_read_in_float32_or_better(dtype):
    q, k = (torch.randn(20, 16).to(getattr(torch, dtype)) for _ in "qk")
    lse = (q.double() @ k.double().T / 4).logsumexp(-1).float()
    head = Head(q_QD=q, k_KD=k, lse_Q=lse, pattern=pattern("full"), query_offset=0, scale=0.25)
    exact = (q.double() @ k.double().T / 4).softmax(-1)
    assert near(maps.tile(head, slice(None), slice(None)), exact)
    assert near(maps.pooled(head, 20, 20, reduce="max").values, exact)
    assert near(maps.pooled(head, 1, 1, reduce="sum").values, torch.tensor([[20.0]]).double())


@every_case(biased=True)
def test_a_pooled_map_is_what_its_cells_hold(case: Case):
    for truth in truths(case):
        length, width = truth.seen_QK.shape
        rows, columns = min(3, length), min(4, width)
        for reduce, reading in product(("mean", "max", "sum"), READINGS):
            given = maps.pooled(truth.head, rows, columns, reduce=reduce, reading=reading)
            values, share = pool_by_hand(
                truth, rows, columns, reduce, reading, (0, length), (0, width)
            )
            assert near(given.values, values, 3e-5)
            assert torch.equal(given.visible_share, share)
            assert given.sampled_rows is None


@every_case(biased=True)
def test_a_map_as_fine_as_its_head_is_the_tile(case: Case):
    for truth in truths(case):
        for reduce, reading in product(("mean", "max", "sum"), READINGS):
            given = maps.pooled(truth.head, 99, 99, reduce=reduce, reading=reading)
            exact = truth.reading(reading).masked_fill(~truth.seen_QK, torch.nan)
            assert near(given.values, exact)
            assert torch.equal(given.visible_share > 0, truth.seen_QK)


@every_case("causal", "local 8", "sinks and window, causal", "left padding", "everything at once")
@pytest.mark.parametrize("reduce", ["mean", "max", "sum"])
def test_a_part_is_pooled_by_its_own_edges(case: Case, reduce):
    for truth in truths(case):
        given = maps.pooled(
            truth.head, 3, 4, reduce=reduce, queries=slice(2, 10), keys=slice(3, 25)
        )
        values, share = pool_by_hand(truth, 3, 4, reduce, "weight", (2, 10), (3, 25))
        assert near(given.values, values)
        assert torch.equal(given.visible_share, share)
        assert given.row_edges.tolist() == spaced((2, 10), 3)
        assert given.column_edges.tolist() == spaced((3, 25), 4)


@every_case(biased=True)
def test_a_row_of_sums_totals_its_queries_less_their_sinks(case: Case):
    for truth in truths(case):
        rows = min(6, truth.head.query_length)
        given = maps.pooled(truth.head, rows, 4, reduce="sum")
        on_keys = truth.seen_QK.any(-1).double()
        if truth.head.sink is not None:
            on_keys *= 1 - (truth.head.sink - truth.head.lse_Q.double()).exp()
        edges = given.row_edges.tolist()
        exact = torch.stack([on_keys[a:b].sum() for a, b in pairwise(edges)])
        assert near(given.values.nansum(-1), exact)


@pytest.mark.parametrize(
    "chosen",
    [pattern("causal"), pattern("full"), pattern("sliding_window", window=200)],
    ids=lambda chosen: chosen.key,
)
@pytest.mark.parametrize(("rows", "columns"), [(3, 2), (7, 500), (700, 3), (500, 500)])
def test_maps_of_many_blocks_are_pooled_tiles(chosen, rows, columns):
    head = random_head(1300, chosen)
    weights = maps.tile(head, slice(None), slice(None)).double()
    given = maps.pooled(head, rows, columns, reduce="sum")
    sums = cumulated(weights, given.row_edges, given.column_edges)
    assert near(given.values.nan_to_num(), sums)
    seen = maps.mask_tile(head, slice(None), slice(None)).double()
    pairs = given.row_edges.diff()[:, None] * given.column_edges.diff()
    assert near(
        given.visible_share, cumulated(seen, given.row_edges, given.column_edges) / pairs, 1e-6
    )


def cumulated(values, row_edges, column_edges):
    """Sums between edges, by differences of a summed-area table."""
    table = torch.nn.functional.pad(values.cumsum(0).cumsum(1), (1, 0, 1, 0))
    corners = table[row_edges][:, column_edges]
    return corners.diff(dim=0).diff(dim=1)


@every_case("causal", "full", "sinks and window, causal", "right padding", "sink logits")
@pytest.mark.parametrize("reduce", ["mean", "max", "sum"])
@pytest.mark.parametrize("queries_per_row", [1, 2])
def test_a_sampled_map_reads_evenly_spaced_queries(case: Case, reduce, queries_per_row):
    for truth in truths(case):
        length, width = truth.seen_QK.shape
        edges = spaced((0, length), 5)
        read = [
            [a + (2 * t + 1) * (b - a) // (2 * queries_per_row) for t in range(queries_per_row)]
            for a, b in pairwise(edges)
        ]
        given = maps.sampled(truth.head, 5, 6, reduce=reduce, queries_per_row=queries_per_row)
        values, share = pool_by_hand(truth, 5, 6, reduce, "weight", (0, length), (0, width), read)
        assert given.sampled_rows == 5 * queries_per_row
        assert near(given.values, values)
        assert torch.equal(given.visible_share, share)


def test_sampling_every_query_is_exact():
    head = random_head(40, pattern("causal"))
    given, exact = maps.sampled(head, 6, 6, queries_per_row=7), maps.pooled(head, 6, 6)
    assert given.sampled_rows is None
    assert torch.equal(given.values.nan_to_num(), exact.values.nan_to_num())


@every_case("causal", "full", "multi-query", "sinks and window, causal", "softcap", "left padding")
@pytest.mark.parametrize("reduce", ["mean", "max", "sum"])
def test_an_overview_is_each_head_pooled(case: Case, reduce):
    made = case.inputs()
    exact = reference(*made.tensors, made.call, **made.extras)
    thumbnails = maps.overview(
        made.q_BHQD[0],
        made.k_BGKD[0],
        exact.lse_BHQ[0].float(),
        pattern=made.call.pattern,
        query_offset=made.call.query_offset,
        scale=made.call.scale,
        softcap=made.call.softcap,
        visible_keys_K=None if made.visible_keys_BK is None else made.visible_keys_BK[0],
        size=8,
        reduce=reduce,
    )
    first = next(truths(case))
    one = maps.pooled(first.head, 8, 8, reduce=reduce)
    assert thumbnails.values.shape == (made.call.query_heads, *one.values.shape)
    assert near(thumbnails.values[0], one.values.double())
    assert torch.equal(thumbnails.visible_share, one.visible_share)


@every_case(biased=True)
def test_the_cost_of_a_map_bounds_its_visible_pairs(case: Case):
    for truth in truths(case):
        cost = maps.pair_cost(truth.head)
        assert int(truth.seen_QK.any(0).sum()) <= cost <= truth.seen_QK.numel()
        assert cost >= int(truth.seen_QK.sum())
        part = maps.pair_cost(truth.head, slice(0, 1), slice(0, 3))
        assert int(truth.seen_QK[:1, :3].sum()) <= part <= 3


def test_the_cost_follows_the_pattern_and_not_the_square():
    long = {"query_length": 100_000}
    window = random_head(1, pattern("sliding_window", window=128), **long)
    assert maps.pair_cost(window) < 1e8 < maps.pair_cost(random_head(1, pattern("causal"), **long))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda head: maps.tile(head, slice(5, 5), slice(None)), "region"),
        (lambda head: maps.tile(head, slice(0, 9, 2), slice(None)), "step 1"),
        (lambda head: maps.tile(head, slice(0, 9), slice(99, 120)), "99:120"),
        (lambda head: maps.tile(head, slice(0, 9), slice(None), reading=unknown("heat")), "heat"),
        (lambda head: maps.pooled(head, 4, 4, reading="value_weighted"), "norms"),
        (lambda head: maps.pooled(head, 4, 4, reduce=unknown("median")), "median"),
        (lambda head: maps.pooled(head, 0, 4), "at least one"),
        (lambda head: maps.sampled(head, 4, 4, queries_per_row=0), "queries_per_row"),
        (lambda head: maps.row(head, 40), "no query 40"),
        (lambda head: maps.column(head, -1), "no key -1"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_its_reason(call, words):
    with pytest.raises(InvalidCall, match=words):
        call(random_head(40, pattern("causal")))


def unknown(name) -> Any:
    return name


def random_head(length, chosen, *, query_length=None):
    generator = torch.Generator().manual_seed(length)
    q = torch.randn(length, 16, generator=generator).mul_(3)
    k = torch.randn(length, 16, generator=generator)
    if query_length is not None:
        q, k = q.expand(query_length, -1), k.expand(query_length, -1)
        lse = torch.zeros(query_length)
    else:
        lse = maps.log_sum_exp(
            q[None, None], k[None, None], pattern=chosen, query_offset=0, scale=0.25
        )[0, 0]
    return Head(q_QD=q, k_KD=k, lse_Q=lse, pattern=chosen, query_offset=0, scale=0.25)
