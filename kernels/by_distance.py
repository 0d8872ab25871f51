"""What a head gives at each distance, on the mean over the pairs that far apart, read block by block.

H query heads, Q, K positions, M distances; R queries and C keys of a block.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.streaming import BLOCK_KEYS, BLOCK_PAIRS, LEAST_ROWS, Layer, segments

Reading = Literal["score", "weight"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ByDistance:
    """Means by distance.

    Attributes:
        distance_M: int64, query position less key position, ascending; negative where keys stand
            after their query.
        mean_HM: float32, NaN where no pair is visible.
        pairs_M: int64, visible pairs at each distance, the same for every head.
    """

    distance_M: Tensor
    mean_HM: Tensor
    pairs_M: Tensor


def by_distance(
    layer: Layer, *, reading: Reading = "score", lse_HQ: Tensor | None = None
) -> ByDistance:
    """The mean score or weight at every distance; only distances with a visible pair are kept.

    Args:
        layer: Its heads, for one sequence.
        reading: What to take the mean of: scores with their scale and softcap, or softmax weights.
        lse_HQ: Natural log-sum-exp, sink included; needed for weights.

    Raises:
        InvalidCall: An unknown reading, or weights without the log-sum-exp.
    """
    if reading not in get_args(Reading):
        raise InvalidCall(f"No reading {reading!r}.", f"Use {', '.join(get_args(Reading))}.")
    if reading == "weight" and lse_HQ is None:
        raise InvalidCall("Weights need the log-sum-exp.", "Give lse_HQ, or read scores.")
    least = layer.query_offset - (layer.key_length - 1)
    width = layer.query_length + layer.key_length - 1
    device = layer.q_HQD.device
    sums_HM = torch.zeros(layer.heads, width, dtype=torch.float64, device=device)
    pairs_M = torch.zeros(width, dtype=torch.int64, device=device)
    step = max(LEAST_ROWS, BLOCK_PAIRS // (layer.heads * min(BLOCK_KEYS, layer.key_length)))
    for start in range(0, layer.query_length, step):
        queries = slice(start, min(start + step, layer.query_length))
        index_R = torch.arange(queries.start, queries.stop, device=device)
        every = range(layer.key_length)
        for segment in segments(layer, start, queries.stop - 1, every, limit=BLOCK_KEYS):
            x_HRC = layer.scores(queries, slice(segment.start, segment.end))
            if lse_HQ is not None and reading == "weight":
                x_HRC = (x_HRC - lse_HQ[:, queries, None]).exp()
            seen_RC = layer.seen(index_R, range(segment.start, segment.end))
            key_C = torch.arange(segment.start, segment.end, device=device)
            place_RC = index_R[:, None] + layer.query_offset - key_C - least
            at_P = place_RC[seen_RC]
            sums_HM.index_add_(1, at_P, x_HRC[:, seen_RC].double())
            pairs_M += torch.bincount(at_P, minlength=width)
    met = pairs_M.nonzero().flatten()
    return ByDistance(
        distance_M=met + least,
        mean_HM=(sums_HM[:, met] / pairs_M[met]).float(),
        pairs_M=pairs_M[met],
    )
