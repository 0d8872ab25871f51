"""What a model adds to its attention scores, taken apart: the pairs it hides, and a bias by distance.

T5 and its kin hand over a tensor of n × n numbers a head that depends on the distance between query and key
alone; others fold such a bias into their mask. One number a distance is all that it says, which is verified
on every pair.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim, R distances, P pairs.
"""

from dataclasses import dataclass
from functools import partial

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
        seen_BHQK: bool, `[B or 1, H or 1, Q, K]`, False where it hides a pair by a number as low as its
            dtype has; None where it hides none.
        distance_bias_HR: float32 `[H, Q + K − 1]`, see `kernels/distance_bias.py`; None where it adds 0.
    """

    seen_BHQK: Tensor | None
    distance_bias_HR: Tensor | None


def without_bias(
    mask: object,
    position_bias: object,
    tensors: tuple[Tensor, Tensor, Tensor],
    architecture: str,
) -> tuple[object, Tensor | None]:
    """The mask of a call, no longer a summand, and the bias by distance that it and the model add.

    Args:
        mask: A MaskRule, a dense tensor of booleans or summands, or None.
        position_bias: Summands, or None.
        tensors: q `[B, H, Q, D]`, k and v `[B, G, K, ·]`.
        architecture: For messages.

    Returns:
        The mask, of booleans if it is a tensor, and float32 `[H, Q + K − 1]` or None.

    Raises:
        UnsupportedCall: See `taken_apart`; or a position bias hides pairs beside a mask that is a rule.
    """
    q_BHQD, k_BGKD, _ = tensors
    lengths = q_BHQD.shape[2], k_BGKD.shape[2]
    apart = partial(taken_apart, heads=q_BHQD.shape[1], lengths=lengths, architecture=architecture)
    found = []
    if isinstance(mask, Tensor) and mask.is_floating_point():
        added = apart(mask, name="attention_mask")
        found.append(added.distance_bias_HR)
        every_pair = torch.ones(1, 1, *lengths, dtype=torch.bool, device=mask.device)
        mask = every_pair if added.seen_BHQK is None else added.seen_BHQK
    if position_bias is not None:
        added = apart(position_bias, name="position_bias")
        found.append(added.distance_bias_HR)
        if added.seen_BHQK is not None:
            mask = _joined(mask, added.seen_BHQK, architecture)
    given = [bias_HR for bias_HR in found if bias_HR is not None]
    return mask, torch.stack(given).sum(0) if given else None


def taken_apart(
    summands: object, *, heads: int, lengths: tuple[int, int], architecture: str, name: str
) -> Added:
    """Takes apart what is added to the scores.

    Args:
        summands: A tensor `[B or 1, H or 1, Q or 1, K or more]`, floating.
        heads: H.
        lengths: Q and K.
        architecture: For messages.
        name: Of the model's argument, for messages.

    Raises:
        UnsupportedCall: What it adds is no function of the distance between query and key, it differs
            between the sequences, it is to be given a gradient, or it is no such tensor.
    """
    if not isinstance(summands, Tensor) or not summands.is_floating_point():
        kind = summands.dtype if isinstance(summands, Tensor) else type(summands).__name__
        raise UnsupportedCall(
            f"{architecture} passes a {name} of {kind}, which has no meaning here.",
            "Choose another model.",
        )
    if summands.requires_grad and torch.is_grad_enabled():
        raise UnsupportedCall(
            f"{architecture} learns its {name}, and no backend here gives it a gradient.",
            "Train it with its own attention, transformers_eager.",
        )
    added_BHQK = cropped(summands.detach(), *lengths, architecture)
    if not _has_numbers(added_BHQK):
        # A rehearsed model has shapes alone: nothing to verify, but room to count.
        shape = heads, distance_bias.columns(*lengths)
        return Added(
            seen_BHQK=None, distance_bias_HR=added_BHQK.new_empty(shape, dtype=torch.float32)
        )
    lowest = torch.finfo(added_BHQK.dtype).min / 2
    hidden_BHQK = added_BHQK <= lowest if bool(added_BHQK.amin() <= lowest) else None
    bias_HR = (
        _of_diagonals(added_BHQK) if hidden_BHQK is None else _of_visible(added_BHQK, hidden_BHQK)
    )
    if bias_HR is None or len(bias_HR) not in (1, heads):
        raise UnsupportedCall(
            f"{architecture} adds a bias to its attention scores ({name}) that is no function of the "
            "distance between query and key alone; no backend here computes that.",
            "Choose another model.",
        )
    return Added(
        seen_BHQK=None if hidden_BHQK is None else ~hidden_BHQK,
        distance_bias_HR=bias_HR.float().expand(heads, -1) if bool(bias_HR.any()) else None,
    )


def _of_diagonals(added_BHQK: Tensor) -> Tensor | None:
    """What all pairs of a distance are given, `[H, R]`; None if they differ."""
    one_HQK = added_BHQK[0]
    # Down a diagonal each pair equals the one before it: a twentieth of the time of a reduction.
    alike = torch.equal(added_BHQK, one_HQK.expand_as(added_BHQK))
    if not alike or not torch.equal(one_HQK[:, 1:, 1:], one_HQK[:, :-1, :-1]):
        return None
    return torch.cat([one_HQK[:, 1:, 0].flip(-1), one_HQK[:, 0]], -1)


def _of_visible(added_BHQK: Tensor, hidden_BHQK: Tensor) -> Tensor | None:
    """What all visible pairs of a distance are given, `[H, R]`, 0 without any; None if they differ."""
    highest_HR, lowest_HR = (
        reduced(_sheared(added_BHQK.masked_fill(hidden_BHQK, nothing), nothing), (0, 2))
        for reduced, nothing in ((torch.amax, -torch.inf), (torch.amin, torch.inf))
    )
    met_HR = highest_HR != -torch.inf
    if not torch.equal(highest_HR[met_HR], lowest_HR[met_HR]):
        return None
    return highest_HR.where(met_HR, 0.0)


def _sheared(pairs_BHQK: Tensor, nothing: float) -> Tensor:
    """Every pair in the column of its distance, the last query in the first row: `[B, H, Q, R]`."""
    queries = pairs_BHQK.shape[2]
    # Rows too long by one, read in a row, start one column farther on each time.
    padded = torch.nn.functional.pad(pairs_BHQK.flip(2), (0, queries), value=nothing)
    return padded.flatten(2)[..., :-queries].unflatten(2, (queries, -1))


def _joined(mask: object, seen_BHQK: Tensor, architecture: str) -> Tensor:
    """The mask of a model that merged one into its position bias."""
    if mask is None:
        return seen_BHQK
    if isinstance(mask, Tensor) and mask.dtype == torch.bool:
        return mask & seen_BHQK
    raise UnsupportedCall(
        f"{architecture} hides pairs through its position bias, beside a mask of its own.",
        "Choose another model.",
    )


def _has_numbers(tensor: Tensor) -> bool:
    return not (tensor.is_meta or isinstance(tensor, FakeTensor))
