import math

import pytest
import torch

from attnscope.kernels import maps
from attnscope.kernels.head import Head
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.pooling import Pooler
from attnscope.kernels.streaming import Layer
from tests.heads import LargestTensor


@pytest.mark.parametrize("reduce", ["mean", "max"])
@pytest.mark.parametrize("sampled", [False, True])
def test_no_map_holds_the_square(reduce, sampled):
    head = causal_head(8192)
    with LargestTensor() as seen:
        if sampled:
            maps.sampled(head, 100, 100, reduce=reduce, queries_per_row=2)
        else:
            maps.pooled(head, 100, 100, reduce=reduce)
    assert 8192 * head.q_QD.shape[1] <= seen.elements <= 600_000


def test_progress_rises_to_the_end_and_may_stop_the_work():
    head = causal_head(1500)
    heard = []
    maps.pooled(head, 100, 100, progress=heard.append)
    assert heard == sorted(heard)
    assert heard[-1] == 1.0
    assert len(heard) > 3

    def stop(share):
        raise KeyboardInterrupt(share)

    with pytest.raises(KeyboardInterrupt):
        maps.pooled(head, 100, 100, progress=stop)


def test_the_rows_a_window_skips_cost_nothing():
    # Keys are read only where some query of the block may look: the rest could be NaN.
    q, k = torch.ones(64, 4), torch.ones(64, 4)
    head = Head(
        q_QD=q,
        k_KD=k.index_fill(0, torch.arange(32), torch.nan),
        lse_Q=torch.full((64,), 5.0),
        pattern=pattern("sliding_window", window=4),
        query_offset=0,
        scale=0.25,
    )
    given = maps.pooled(head, 4, 4, reduce="sum", queries=slice(40, 64))
    assert bool(given.values[:, 2:].isfinite().any())
    assert not bool((given.values == 0).any())
    assert bool(given.values[:, :2].isnan().all())


def test_padding_never_reaches_a_cell():
    layer = Layer(
        q_HQD=torch.ones(2, 8, 4),
        k_GKD=torch.ones(1, 8, 4).index_fill(1, torch.tensor([3]), 1e20),
        pattern=pattern("full"),
        query_offset=0,
        scale=0.25,
        visible_keys_K=torch.arange(8) != 3,
    )
    edges = torch.tensor([0, 4, 8])
    lse_HQ = torch.full((2, 8), 1.0 + math.log(7))
    for maximum, exact in ((False, [12 / 7, 16 / 7]), (True, [1 / 7, 1 / 7])):
        pooler = Pooler(layer, lse_HQ, column_edges=edges, reading="weight", maximum=maximum)
        cells = pooler.run(edges, queries_per_row=None, progress=None)
        torch.testing.assert_close(cells.values_HMN, torch.tensor(exact).expand(2, 2, 2))
        assert cells.visible_MN.tolist() == [[12, 16], [12, 16]]
        assert cells.read_M.tolist() == [4, 4]


def test_counts_of_a_cell_are_exact_beyond_what_float32_counts():
    layer = Layer(
        q_HQD=torch.ones(1, 128, 1),
        k_GKD=torch.ones(1, 150_001, 1),
        pattern=pattern("full"),
        query_offset=0,
        scale=1.0,
        visible_keys_K=torch.arange(150_001) != 3,
    )
    edges = torch.tensor([0, 150_001])
    lse_HQ = torch.zeros(1, 128)
    pooler = Pooler(layer, lse_HQ, column_edges=edges, reading="weight", maximum=True)
    cells = pooler.run(torch.tensor([0, 128]), queries_per_row=None, progress=None)
    assert cells.visible_MN.tolist() == [[150_000 * 128]]


def causal_head(length):
    generator = torch.Generator().manual_seed(length)
    q, k = (torch.randn(length, 16, generator=generator) for _ in "qk")
    return Head(
        q_QD=q,
        k_KD=k,
        lse_Q=torch.full((length,), 8.0),
        pattern=pattern("causal"),
        query_offset=0,
        scale=0.25,
    )
