"""What a model adds to its attention scores as a tensor, taken apart: pairs it hides, and a bias by distance.

T5 and its kin hand over a bias of n × n numbers a head that depends on the distance between query and key
alone; others fold such a bias into their mask. One number a distance is all that such a tensor says, which is
verified on every pair.

B batch, H query heads, Q queries, K keys, R distances.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from attnscope.kernels import distance_bias
from attnscope.kernels.errors import UnsupportedCall
from attnscope.models.masks import cropped


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What a tensor adds to the scores.

    Attributes:
        seen_BHQK: bool, `[B or 1, H or 1, Q, K]`, False where it hides a pair by a number as low as there
            is; None where it hides none.
        distance_bias_HR: float32 `[H, Q + K − 1]`, see `kernels/distance_bias.py`; None where it adds 0.
    """

    seen_BHQK: Tensor | None
    distance_bias_HR: Tensor | None


def taken_apart(
    added_BHQK: Tensor,
    *,
    heads: int,
    lengths: tuple[int, int],
    architecture: str,
    name: str,
) -> Added:
    """Takes a tensor of summands apart.

    Args:
        added_BHQK: `[B or 1, H or 1, Q or 1, K or more]`, floating; longer ones are cropped, as
            transformers' own functions do.
        heads: H.
        lengths: Q and K.
        architecture: For messages.
        name: Of the model's argument, for messages.

    Raises:
        UnsupportedCall: What it adds is no function of the distance between query and key, it differs
            between the sequences, or its shape does not fit.
    """
    added_BHQK = cropped(added_BHQK.detach(), *lengths, architecture)
    if not _has_numbers(added_BHQK):
        # A rehearsed model has shapes alone: there is nothing to verify, and room for a bias to count.
        shape = heads, distance_bias.columns(*lengths)
        return Added(
            seen_BHQK=None, distance_bias_HR=added_BHQK.new_empty(shape, dtype=torch.float32)
        )
    hidden_BHQK = added_BHQK <= torch.finfo(added_BHQK.dtype).min / 2
    seen_BHQK = ~hidden_BHQK if bool(hidden_BHQK.any()) else None
    visible_BHQK = added_BHQK.masked_fill(hidden_BHQK, 0)
    if not bool(visible_BHQK.any()):
        return Added(seen_BHQK=seen_BHQK, distance_bias_HR=None)
    bias_HR = _by_distance(added_BHQK.float(), hidden_BHQK)
    if bias_HR is None or len(bias_HR) not in (1, heads):
        raise UnsupportedCall(
            f"{architecture} adds a bias to its attention scores ({name}) that is no function of the "
            "distance between query and key alone, one a head; no backend here computes that.",
            "Choose another model.",
        )
    return Added(seen_BHQK=seen_BHQK, distance_bias_HR=bias_HR.expand(heads, -1))


def _by_distance(added_BHQK: Tensor, hidden_BHQK: Tensor) -> Tensor | None:
    """The number that all visible pairs of a distance share, `[H, R]`, 0 without any; None if they do not."""
    batch, heads, queries, keys = added_BHQK.shape
    device = added_BHQK.device
    query_Q1 = torch.arange(queries, device=device)[:, None]
    column_QK = torch.arange(keys, device=device) - query_Q1 + queries - 1
    column_HP = column_QK.flatten().repeat(batch).expand(heads, -1)
    bounds = []
    for reduce, nothing in (("amax", -torch.inf), ("amin", torch.inf)):
        added_HP = added_BHQK.masked_fill(hidden_BHQK, nothing).transpose(0, 1).flatten(1)
        bound_HR = added_HP.new_full((heads, distance_bias.columns(queries, keys)), nothing)
        bounds.append(bound_HR.scatter_reduce_(1, column_HP, added_HP, reduce))
    highest_HR, lowest_HR = bounds
    met_HR = highest_HR != -torch.inf
    if not torch.equal(highest_HR[met_HR], lowest_HR[met_HR]):
        return None
    return highest_HR.where(met_HR, 0.0)


def _has_numbers(tensor: Tensor) -> bool:
    return not (tensor.is_meta or isinstance(tensor, FakeTensor))
