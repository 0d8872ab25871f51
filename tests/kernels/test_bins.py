import pytest
import torch

from attnscope.kernels.bins import Columns, bin_edges, row_blocks


@pytest.mark.parametrize(("start", "end", "bins"), [(0, 7, 3), (5, 6, 1), (3, 131, 64), (0, 9, 9)])
def test_bins_fill_the_region_and_differ_by_at_most_one(start, end, bins):
    edges = bin_edges(start, end, bins)
    assert (int(edges[0]), int(edges[-1]), len(edges)) == (start, end, bins + 1)
    assert int(edges.diff().max()) - int(edges.diff().min()) <= 1
    assert int(edges.diff().min()) >= 1


@pytest.mark.parametrize(
    ("queries", "bins", "limit"), [(100, 7, 40), (100, 7, 5), (96, 8, 30), (10, 10, 3), (9, 2, 100)]
)
@pytest.mark.parametrize("rows", [1, 3, 100])
def test_blocks_hold_every_query_once(queries, bins, limit, rows):
    edges = bin_edges(4, 4 + queries, bins)
    read = {row: [] for row in range(bins)}
    for block in row_blocks(edges, limit=limit, rows=rows, queries_per_row=None):
        assert block.queries_rw.numel() <= limit
        assert block.row_end - block.row_start <= rows
        real = torch.ones_like(block.queries_rw) if block.real_rw is None else block.real_rw
        for row in range(block.row_start, block.row_end):
            line = row - block.row_start
            kept = block.queries_rw[line][real[line].bool()].tolist()
            assert int(block.read_r[line]) == len(kept)
            read[row] += kept
        flat = block.queries_rw.flatten().tolist()
        assert (block.first, block.last) == (min(flat), max(flat))
        assert block.adjacent == (flat == list(range(block.first, block.last + 1)))
    assert read == {row: list(range(edges[row], edges[row + 1])) for row in range(bins)}


@pytest.mark.parametrize("queries_per_row", [1, 3])
def test_samples_are_spread_over_their_row(queries_per_row):
    edges = bin_edges(0, 100, 9)
    blocks = list(row_blocks(edges, limit=64, rows=9, queries_per_row=queries_per_row))
    assert len(blocks) >= 4
    chosen = torch.cat([block.queries_rw for block in blocks])
    assert chosen.shape == (9, queries_per_row)
    for row, queries in enumerate(chosen.tolist()):
        assert queries == sorted(set(queries))
        assert edges[row] <= queries[0]
        assert queries[-1] < edges[row + 1]
        middle = float(edges[row] + edges[row + 1]) / 2
        assert abs(sum(queries) / len(queries) - middle) <= 1


@pytest.mark.parametrize(
    ("start", "end", "bins"), [(3, 23, 20), (3, 24, 4), (0, 128, 4), (0, 130, 4)]
)
@pytest.mark.parametrize("maximum", [False, True])
def test_columns_reduce_what_lies_between_their_edges(start, end, bins, maximum):
    edges = bin_edges(start, end, bins)
    columns = Columns(edges, torch.device("cpu"))
    x = torch.rand(2, 3, 200, generator=torch.Generator().manual_seed(0))
    for part in (slice(0, bins), slice(1, bins), slice(1, bins - 1)):
        within = x[..., edges[part.start] : edges[part.stop]]
        given = columns.reduce(within, part, maximum=maximum)
        cells = [x[..., edges[n] : edges[n + 1]] for n in range(part.start, part.stop)]
        exact = [cell.amax(-1) if maximum else cell.sum(-1) for cell in cells]
        torch.testing.assert_close(given, torch.stack(exact, -1))


def test_columns_know_which_keys_they_hold():
    columns = Columns(torch.tensor([2, 5, 7, 10]), torch.device("cpu"))
    assert columns.touched(2, 10) == slice(0, 3)
    assert columns.touched(5, 7) == slice(1, 2)
    assert columns.touched(4, 6) == slice(0, 2)
    assert columns.bounds(4, 9, slice(0, 3)).tolist() == [0, 1, 3, 5]
