"""Layers made from the table of odd cases, beside what the float64 reference says of them.

H query heads, G kv heads, Q, K positions; M rows and N columns of a map.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from attnscope.kernels.call import Dtype
from attnscope.kernels.reference import reference
from attnscope.kernels.scores import scores
from attnscope.kernels.streaming import Layer
from tests.heads import bias_of, seen
from tests.shapes import Case, Inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTruth:
    """The heads of one sequence, and their maps in float64."""

    layer: Layer
    lse_HQ: Tensor
    sinks_H: Tensor | None
    value_norm_HK: Tensor
    weights_HQK: Tensor
    scores_HQK: Tensor
    seen_QK: Tensor

    def worth(self, reading: str) -> Tensor:
        """What each pair is worth, hidden ones not yet hidden: float64 `[H, Q, K]`."""
        if reading == "score":
            return self.scores_HQK
        if reading == "value_weighted":
            return self.weights_HQK * self.value_norm_HK.double()[:, None]
        return self.weights_HQK

    def sums(self, row_edges: Tensor, column_edges: Tensor, reading: str = "weight") -> Tensor:
        """Sums of the visible pairs of each cell, by products with who belongs where: `[H, M, N]`."""
        visible_HQK = self.worth(reading).masked_fill(~self.seen_QK, 0.0)
        return self._pooled(visible_HQK, row_edges, column_edges)

    def pairs(self, row_edges: Tensor, column_edges: Tensor) -> Tensor:
        """Visible pairs of each cell: int64 `[M, N]`."""
        return self._pooled(self.seen_QK.double(), row_edges, column_edges).long()

    def maxima(self, row_edges: Tensor, column_edges: Tensor, reading: str = "weight") -> Tensor:
        """The largest visible pair of each cell, where there is one, else −inf: `[H, M, N]`."""
        visible_HQK = self.worth(reading).masked_fill(~self.seen_QK, -torch.inf)
        rows, columns = (pairwise(edges.tolist()) for edges in (row_edges, column_edges))
        tall_HMK = torch.stack([visible_HQK[:, a:b].amax(1) for a, b in rows], 1)
        return torch.stack([tall_HMK[..., a:b].amax(-1) for a, b in columns], -1)

    def _pooled(self, pairs: Tensor, row_edges: Tensor, column_edges: Tensor) -> Tensor:
        queries, keys = self.seen_QK.shape
        return _members(row_edges, queries) @ pairs @ _members(column_edges, keys).T


def layer_truths(made: Inputs) -> Iterator[LayerTruth]:
    """Each sequence of a call."""
    call = made.call
    exact = reference(*made.tensors, call, **made.extras)
    k_BHKD, v_BHKD = (t.repeat_interleave(call.group_size, 1) for t in made.tensors[1:])
    scores_BHQK = scores(
        made.q_BHQD.double(), k_BHKD.double(), scale=call.scale, softcap=call.softcap
    )
    scores_BHQK = scores_BHQK + bias_of(made)
    for item in range(call.batch):
        shown_BK = made.visible_keys_BK
        yield LayerTruth(
            layer=Layer(
                q_HQD=made.q_BHQD[item],
                k_GKD=made.k_BGKD[item],
                pattern=call.pattern,
                query_offset=call.query_offset,
                scale=call.scale,
                softcap=call.softcap,
                visible_keys_K=None if shown_BK is None else shown_BK[item],
                distance_bias_HR=made.distance_bias_HR,
            ),
            lse_HQ=exact.lse_BHQ[item].float(),
            sinks_H=made.sinks_H,
            value_norm_HK=v_BHKD[item].float().norm(dim=-1),
            weights_HQK=exact.weights_BHQK[item],
            scores_HQK=scores_BHQK[item],
            seen_QK=seen(made, item),
        )


def last_layer(case: Case, dtype: Dtype = "float32") -> LayerTruth:
    """The last sequence of a case: the one with most padding."""
    return list(layer_truths(case.inputs(dtype)))[-1]


def _members(edges: Tensor, length: int) -> Tensor:
    """Which positions each cell holds: float64 `[cells, length]` of 0 and 1."""
    position = torch.arange(length)
    return ((position >= edges[:-1, None]) & (position < edges[1:, None])).double()
