"""Feature maps φ: in place of exp(q·k), a kernel φ(q)·φ(k) whose sums over keys can be kept.

All features here are positive and are given as logarithms: whoever sums them takes a maximum away
first, as a softmax does, so that nothing overflows and the quotient stays what it was.

D head dim, F features; leading dimensions are free.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from attnscope.kernels.scores import accumulation_dtype

LogFeatures = Callable[[Tensor], Tensor]
"""From `[..., D]` to log φ, `[..., F]`."""


def log_elu_plus_one(x_D: Tensor) -> Tensor:
    """Log of elu(x) + 1 (arXiv 2006.16236 eq. 7): x + 1 above 0, exp(x) below; F = D."""
    return x_D.clamp(max=0) + torch.log1p(x_D.clamp(min=0))


def log_positive_random(x_D: Tensor, projection_FD: Tensor, *, scale: float) -> Tensor:
    """Log of FAVOR+'s positive random features (arXiv 2009.14794 lemma 1).

    φ_f(x) = exp(w_f·x − ‖x‖² / 2) / √F. With rows w_f that are normal, φ(q)·φ(k) is on average
    exp(scale · q·k): scale enters as its root on either side.

    Args:
        x_D: `[..., D]`, queries or keys.
        projection_FD: `[F, D]`, the rows w_f, in the dtype of `x_D`.
        scale: What multiplies q·k in the softmax; above 0.
    """
    x_D = x_D * math.sqrt(scale)
    half_1 = (x_D.square().sum(-1, keepdim=True) + math.log(len(projection_FD))) / 2
    return x_D @ projection_FD.T - half_1


@lru_cache(maxsize=32)
def orthogonal_projection(features: int, head_dim: int, seed: int) -> Tensor:
    """Random rows that are orthogonal within each block of D (arXiv 2009.14794 §2.4).

    Each row alone is normal, N(0, I): a direction uniform on the sphere, times the length of a normal
    vector. So estimates from them are unbiased, and orthogonality makes them vary less.

    Returns:
        float64 `[features, head_dim]` on the CPU, the same for a seed on every machine.
    """
    generator = torch.Generator().manual_seed(seed)
    blocks = [
        _orthogonal(head_dim, generator)[: features - first]
        for first in range(0, features, head_dim)
    ]
    normal_FD = torch.randn(features, head_dim, generator=generator, dtype=torch.float64)
    return torch.cat(blocks) * normal_FD.norm(dim=1, keepdim=True)


def _orthogonal(size: int, generator: torch.Generator) -> Tensor:
    """An orthogonal matrix, uniform among all: R's diagonal above 0 makes Q unique."""
    q, r = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    return q * r.diagonal().sign()


def stable_features(
    q_BHQD: Tensor, k_BGKD: Tensor, log_features: LogFeatures, visible_keys_BK: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """φ of queries and keys, all of them at once, in the range of 16 bits.

    Each feature is relative to its largest visible key, which the queries are given back, and each
    query to its largest feature. Every quotient of sums of φ(q)·φ(k) is what it was, so an estimate
    stays as unbiased as it was; one number for all features would let the small ones vanish.

    Args:
        q_BHQD: `[B, H, Q, D]`.
        k_BGKD: `[B, G, K, D]`.
        log_features: log φ.
        visible_keys_BK: bool, False where a key is padding; its features are 0.

    Returns:
        `[B, H, Q, F]` and `[B, G, K, F]` from 0 to 1, in the dtype of the inputs.
    """
    dtype = accumulation_dtype(q_BHQD.dtype)
    log_q_BHQF, log_k_BGKF = log_features(q_BHQD.to(dtype)), log_features(k_BGKD.to(dtype))
    if visible_keys_BK is not None:
        log_k_BGKF = log_k_BGKF.masked_fill(~visible_keys_BK[:, None, :, None], -torch.inf)
    highest_BG1F = log_k_BGKF.detach().amax(2, keepdim=True).clamp_min(torch.finfo(dtype).min)
    group = q_BHQD.shape[1] // k_BGKD.shape[1]
    log_q_BHQF = log_q_BHQF + highest_BG1F.repeat_interleave(group, 1)
    q_BHQF = (log_q_BHQF - log_q_BHQF.detach().amax(-1, keepdim=True)).exp()
    return q_BHQF.to(q_BHQD.dtype), (log_k_BGKF - highest_BG1F).exp().to(k_BGKD.dtype)
