"""Heads made from the table of odd cases, beside what the float64 reference says of them.

B batch, H query heads, Q, K positions.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from attnscope.kernels.head import Head
from attnscope.kernels.reference import reference
from attnscope.kernels.scores import scores, visible
from tests.shapes import Case, Inputs
from tests.tolerance import toeplitz


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """A head, and its map in float64."""

    head: Head
    weights_QK: Tensor
    scores_QK: Tensor
    seen_QK: Tensor

    def reading(self, name: str) -> Tensor:
        """The map as `tile` gives it, with NaN at a masked score."""
        if name == "score":
            return self.scores_QK.masked_fill(~self.seen_QK, torch.nan)
        if name == "value_weighted":
            assert self.head.value_norm_K is not None
            return self.weights_QK * self.head.value_norm_K.double()
        return self.weights_QK


def truths(case: Case) -> Iterator[Truth]:
    """The first and the last head of each sequence of a case."""
    made = case.inputs()
    exact = reference(*made.tensors, made.call, **made.extras)
    bias_HQK = bias_of(made)
    for item in range(made.call.batch):
        for head in {0, made.call.query_heads - 1}:
            yield Truth(
                head=_head(made, exact.lse_BHQ, item, head),
                weights_QK=exact.weights_BHQK[item, head],
                scores_QK=scores(
                    made.q_BHQD[item, head].double(),
                    made.k_BGKD[item, head // made.call.group_size].double(),
                    scale=made.call.scale,
                    softcap=made.call.softcap,
                )
                + bias_HQK[head],
                seen_QK=seen(made, item),
            )


def bias_of(made: Inputs) -> Tensor:
    """What is added to every pair's score, float64 `[H, Q, K]`; 0 without a bias by distance."""
    call, bias_HR = made.call, made.distance_bias_HR
    if bias_HR is None:
        return torch.zeros(call.query_heads, 1, 1, dtype=torch.float64)
    return toeplitz(bias_HR.double(), call)


def seen(made: Inputs, item: int) -> Tensor:
    """Which pairs of one sequence may attend: bool `[Q, K]`."""
    call, shown_BK = made.call, made.visible_keys_BK
    queries = range(call.query_offset, call.query_offset + call.query_length)
    shown_K = None if shown_BK is None else shown_BK[item]
    return visible(call.pattern, queries, range(call.key_length), shown_K)


def _head(made: Inputs, lse_BHQ: Tensor, item: int, head: int) -> Head:
    call, group = made.call, head // made.call.group_size
    return Head(
        q_QD=made.q_BHQD[item, head],
        k_KD=made.k_BGKD[item, group],
        lse_Q=lse_BHQ[item, head].float(),
        pattern=call.pattern,
        query_offset=call.query_offset,
        scale=call.scale,
        softcap=call.softcap,
        sink=None if made.sinks_H is None else float(made.sinks_H[head]),
        visible_keys_K=None if made.visible_keys_BK is None else made.visible_keys_BK[item],
        value_norm_K=made.v_BGKD[item, group].norm(dim=-1),
        distance_bias_R=None if made.distance_bias_HR is None else made.distance_bias_HR[head],
    )


class LargestTensor(TorchDispatchMode):
    """Remembers how many elements the largest tensor held that any operation gave."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        """Runs the operation and looks at its results' storages."""
        given = function(*args, **(kwargs or {}))
        for result in given if isinstance(given, (tuple, list)) else (given,):
            if isinstance(result, Tensor):
                size = result.untyped_storage().nbytes() // result.element_size()
                self.elements = max(self.elements, size)
        return given
