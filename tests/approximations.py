"""What the approximations are by definition, written out in float64: the oracle of their tests.

Every weight is a number in an array, every visible pair is named by a loop.

B batch, H query heads, Q queries, K keys, D head dim, F features.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from tests.inputs import Inputs


def elu_plus_one(x_D: Tensor) -> Tensor:
    """elu(x) + 1, by its two cases."""
    return torch.where(x_D > 0, x_D + 1, x_D.exp())


def favor(x_D: Tensor, projection_FD: Tensor, scale: float) -> Tensor:
    """exp(w·x − |x|²/2) / sqrt(F), x multiplied by the root of the scale, one feature at a time."""
    x_D = x_D * scale**0.5
    norm = (x_D * x_D).sum(-1)
    features = [(x_D @ w_D - norm / 2).exp() for w_D in projection_FD]
    return torch.stack(features, -1) / len(projection_FD) ** 0.5


def published_favor(x_D: Tensor, projection_FD: Tensor, scale: float) -> Tensor:
    """The same up to a factor of all vectors, as it is computed in practice: relative to the largest."""
    x_D = x_D * scale**0.5
    exponents = x_D @ projection_FD.mT - (x_D * x_D).sum(-1, keepdim=True) / 2
    return (exponents - exponents.max()).exp()


def seen_pairs(inputs: Inputs, *, causal: bool) -> Tensor:
    """bool `[B, 1, Q, K]`, by a loop over pairs."""
    call, padding = inputs.call, inputs.visible_keys_BK
    seen = torch.zeros(call.batch, 1, call.query_length, call.key_length, dtype=torch.bool)
    for sequence in range(call.batch):
        for query in range(call.query_length):
            for key in range(call.key_length):
                shown = padding is None or bool(padding[sequence, key])
                after = causal and key > query + call.query_offset
                seen[sequence, 0, query, key] = shown and not after
    return seen


def kernel_weights(q_BHQF: Tensor, k_BHKF: Tensor, seen_BHQK: Tensor) -> Tensor:
    """φ(q)·φ(k) over its sum along the visible keys; a row that sees nothing is 0."""
    weights_BHQK = (q_BHQF @ k_BHKF.mT) * seen_BHQK
    total_BHQ1 = weights_BHQK.sum(-1, keepdim=True)
    return weights_BHQK / total_BHQ1.where(seen_BHQK.any(-1, keepdim=True), 1)


def kernel_attention(
    inputs: Inputs,
    feature_map: Callable[[Tensor], Tensor],
    *,
    causal: bool,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """`[B, H, Q, value_dim]`: features, weights and output each rounded to the dtype."""
    q_BHQD, k_BHKD, v_BHKD = repeated(inputs, dtype)
    weights_BHQK = kernel_weights(
        feature_map(q_BHQD), feature_map(k_BHKD), seen_pairs(inputs, causal=causal)
    )
    return weights_BHQK @ v_BHKD


def projected_attention(
    inputs: Inputs, projection_KR: Tensor, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Linformer's `[B, H, Q, value_dim]`: each projected row is a sum over the visible keys."""
    q_BHQD, k_BHKD, v_BHKD = repeated(inputs, dtype)
    if inputs.visible_keys_BK is not None:
        shown_B1K1 = inputs.visible_keys_BK[:, None, :, None]
        k_BHKD, v_BHKD = k_BHKD * shown_B1K1, v_BHKD * shown_B1K1
    rows_RK = projection_KR.to(dtype).mT
    k_BHRD, v_BHRD = rows_RK @ k_BHKD, rows_RK @ v_BHKD
    scores_BHQR = q_BHQD @ k_BHRD.mT * inputs.call.scale
    exponentials_BHQR = (scores_BHQR - scores_BHQR.amax(-1, keepdim=True)).exp()
    return exponentials_BHQR / exponentials_BHQR.sum(-1, keepdim=True) @ v_BHRD


def repeated(inputs: Inputs, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """q, and k and v once for each query head."""
    q_BHQD, *keys = (tensor.to(dtype) for tensor in inputs.tensors)
    k_BHKD, v_BHKD = (tensor.repeat_interleave(inputs.call.group_size, 1) for tensor in keys)
    return q_BHQD, k_BHKD, v_BHKD
