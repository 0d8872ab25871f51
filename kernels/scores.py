"""The one place where a score is computed and where a pair is ruled visible or not.

Q queries, K keys, D head dim; leading dimensions (batch, heads) broadcast.
"""

import torch
from torch import Tensor

from attnscope.kernels.patterns.pattern import Pattern

Positions = range | Tensor
"""Absolute token positions: a range of step 1, or an integer tensor of one dimension."""


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype scores and sums are held in: float64 for float64 inputs, float32 for all others."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def scores(q_QD: Tensor, k_KD: Tensor, *, scale: float, softcap: float | None) -> Tensor:
    """The argument of the softmax, before any mask: `softcap * tanh(scale * q·k / softcap)`.

    Args:
        q_QD: `[..., Q, D]`, any floating dtype.
        k_KD: `[..., K, D]`; its leading dimensions broadcast with those of `q_QD`.
        scale: Multiplies q·k.
        softcap: Bound of the scores (Gemma 2, arXiv 2408.00118 §2), or None for no bound.

    Returns:
        `[..., Q, K]`, float32; float64 where the inputs are float64.
    """
    dtype = accumulation_dtype(q_QD.dtype)
    # On q the factor costs Q·D products; on the scores it would cost Q·K.
    factor = scale if softcap is None else scale / softcap
    scores_QK = torch.matmul(q_QD.to(dtype) * factor, k_KD.to(dtype).mT)
    return scores_QK if softcap is None else scores_QK.tanh_().mul_(softcap)


def visible(
    pattern: Pattern,
    queries: Positions,
    keys: Positions,
    visible_keys_K: Tensor | None = None,
    *,
    device: torch.device | None = None,
) -> Tensor:
    """Which pairs of a rectangle may attend: the pattern's rule and the padding's.

    Args:
        pattern: The rule, in absolute positions.
        queries: Absolute positions of the rectangle's queries.
        keys: Absolute positions of the rectangle's keys.
        visible_keys_K: bool `[..., key_length]` over *all* keys of the sequence (it is indexed by
            `keys` here), False where a key is padding; None when nothing is padded.
        device: Of the result; by default that of `visible_keys_K`, else of the positions given as
            tensors, else the CPU.

    Returns:
        bool `[..., Q, K]`.
    """
    device = device or _device_of(visible_keys_K, queries, keys)
    query_Q, key_K = _as_tensor(queries, device), _as_tensor(keys, device)
    seen_QK = pattern.visible(query_Q[:, None], key_K[None, :])
    seen_QK = seen_QK.expand(len(query_Q), len(key_K))
    if visible_keys_K is None:
        return seen_QK
    kept_K = (
        visible_keys_K[..., keys.start : keys.stop]
        if isinstance(keys, range)
        else visible_keys_K[..., key_K.to(visible_keys_K.device)]
    )
    return seen_QK & kept_K.to(device)[..., None, :]


def _as_tensor(positions: Positions, device: torch.device) -> Tensor:
    if isinstance(positions, range):
        return torch.arange(positions.start, positions.stop, device=device)
    return positions.to(device)


def _device_of(*candidates: object) -> torch.device:
    return next((c.device for c in candidates if isinstance(c, Tensor)), torch.device("cpu"))
