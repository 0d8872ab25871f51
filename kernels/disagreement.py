"""How far the maps of heads that share keys lie apart, read block by block from q, k and the log-sum-exp.

H query heads, G kv heads, g groups, N heads of a group, Q, K positions; R queries and C keys of a block.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.streaming import BLOCK_KEYS, BLOCK_PAIRS, LEAST_ROWS, Layer, segments

Measure = Literal["total_variation", "jensen_shannon"]
"""Half the sum of the differences, and the mean divergence of both maps from their mean, in nats."""

HIGHEST = {"total_variation": 1.0, "jensen_shannon": 0.6931471805599453}
"""Where no key is shared: 1, and log 2."""


def disagreement(
    layer: Layer, lse_HQ: Tensor, *, groups: int | None = None, measure: Measure = "total_variation"
) -> Tensor:
    """How far the maps of every two heads of a group lie apart, on the mean over the queries.

    A row of a map is a distribution over keys; what a sink took is one more key. The measures are
    total variation and Jensen-Shannon divergence (J. Lin, "Divergence measures based on the Shannon
    entropy", 1991). No more than a block of weights is held at once.

    Args:
        layer: Its heads, for one sequence.
        lse_HQ: Natural log-sum-exp, sink included; −inf where nothing is seen: such rows count not.
        groups: How many groups of consecutive heads; those that share a kv head when None. Fewer
            than G say what pooling to so many kv heads would put together.
        measure: Which.

    Returns:
        float32 `[g, N, N]`, symmetric, 0 on the diagonal; NaN where no query sees a key.

    Raises:
        InvalidCall: The groups do not divide the heads, or an unknown measure.
    """
    groups = layer.k_GKD.shape[0] if groups is None else groups
    if measure not in get_args(Measure):
        raise InvalidCall(f"No measure {measure!r}.", f"Use {', '.join(get_args(Measure))}.")
    if groups < 1 or layer.heads % groups:
        raise InvalidCall(
            f"{layer.heads} query heads do not form {groups} groups of equal size.",
            f"Choose a number that divides {layer.heads}.",
        )
    size = layer.heads // groups
    totals_gNN = layer.q_HQD.new_zeros((groups, size, size), dtype=torch.float64)
    step = max(LEAST_ROWS, BLOCK_PAIRS // (layer.heads * min(BLOCK_KEYS, layer.key_length)))
    for start in range(0, layer.query_length, step):
        queries = slice(start, min(start + step, layer.query_length))
        totals_gNN += _of_queries(layer, lse_HQ[:, queries], queries, groups, measure)
    read = int((lse_HQ != -torch.inf).any(0).sum())
    return (totals_gNN / read if read else totals_gNN.fill_(torch.nan)).float()


def _of_queries(
    layer: Layer, lse_HR: Tensor, queries: slice, groups: int, measure: Measure
) -> Tensor:
    """The sum over a block of queries, `[g, N, N]`."""
    index_R = torch.arange(queries.start, queries.stop, device=layer.q_HQD.device)
    # Nothing is seen where the log-sum-exp is −inf: +inf there makes every weight 0.
    lse_HR1 = lse_HR.masked_fill(lse_HR == -torch.inf, torch.inf)[..., None]
    total_gNN = lse_HR.new_zeros((), dtype=torch.float64)
    kept_HR1 = torch.zeros_like(lse_HR1)
    every = range(layer.key_length)
    for segment in segments(layer, queries.start, queries.stop - 1, every, limit=BLOCK_KEYS):
        x_HRC = layer.scores(queries, slice(segment.start, segment.end))
        seen_RC = layer.seen(index_R, range(segment.start, segment.end))
        weights_HRC = (x_HRC - lse_HR1).exp().masked_fill(~seen_RC, 0.0)
        kept_HR1 = kept_HR1 + weights_HRC.sum(-1, keepdim=True)
        total_gNN = total_gNN + _apart(weights_HRC, groups, measure)
    sink_HR1 = (1 - kept_HR1).clamp_min(0.0).masked_fill(lse_HR1 == torch.inf, 0.0)
    return total_gNN + _apart(sink_HR1, groups, measure)


def _apart(weights_HRC: Tensor, groups: int, measure: Measure) -> Tensor:
    """The share of these pairs in the measure, summed: float64 `[g, N, N]`."""
    heads_gNP = weights_HRC.unflatten(0, (groups, -1)).flatten(2)
    columns = []
    for one_g1P in heads_gNP.split(1, dim=1):
        if measure == "total_variation":
            terms_gNP = (heads_gNP - one_g1P).abs_().mul_(0.5)
        else:
            half_gNP = (heads_gNP + one_g1P) / 2
            both_gNP = torch.xlogy(heads_gNP, heads_gNP) + torch.xlogy(one_g1P, one_g1P)
            terms_gNP = both_gNP / 2 - torch.xlogy(half_gNP, half_gNP)
        columns.append(terms_gNP.sum(-1, dtype=torch.float64))
    return torch.stack(columns, -1)
