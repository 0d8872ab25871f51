"""The one rule by which a kernel's numbers are right.

An error is judged against the error that PyTorch itself makes on the same inputs in the same dtype,
never against a constant: the rule of flash-attention's own tests (hopper/test_flash_attn.py).
"""

import math

import torch
from torch import Tensor

from attnscope.kernels.call import AttentionCall
from attnscope.kernels.scores import visible


def assert_as_good_as(actual: Tensor | None, exact: Tensor, same_dtype_reference: Tensor) -> None:
    """`actual` errs no more than twice what PyTorch errs, plus the rounding of the reference
    (one unit in the last place of its largest number).

    Args:
        actual: What the kernel gave.
        exact: float64, what it should be.
        same_dtype_reference: What PyTorch's own attention gives in the kernel's dtype.
    """
    assert actual is not None
    assert actual.shape == exact.shape, f"shape {tuple(actual.shape)}, not {tuple(exact.shape)}"
    assert actual.dtype == same_dtype_reference.dtype
    assert not actual.isnan().any(), "NaN"
    finite = exact.isfinite()
    assert torch.equal(actual[~finite].double(), exact[~finite]), "an infinity out of place"
    if not finite.any():
        return
    exact, actual = exact[finite], actual[finite]
    theirs = (same_dtype_reference[finite].double() - exact).abs().max().item()
    assert math.isfinite(theirs), "the reference itself is NaN or infinite"
    # The reference's own sums are rounded too, which is all there is to see in float64.
    unit = torch.finfo(actual.dtype).eps + 8 * torch.finfo(torch.float64).eps
    # 0.3 as in flash-attention's rule: a small number is not held to its own last digit.
    allowed = 2 * theirs + unit * (exact.abs().max().item() + 0.3)
    ours = (actual.double() - exact).abs().max().item()
    assert ours <= allowed, f"error {ours:.2e}, allowed {allowed:.2e} (PyTorch errs {theirs:.2e})"


def toeplitz(distance_bias_HR: Tensor, call: AttentionCall) -> Tensor:
    """The bias of every pair, `[H, Q, K]`: a row of each query, one column further left than the last's."""
    last = call.query_length - 1
    rows = [
        distance_bias_HR[:, last - query : last - query + call.key_length]
        for query in range(call.query_length)
    ]
    return torch.stack(rows, 1)


def pytorch_attention(
    q_BHQD: Tensor,
    k_BGKD: Tensor,
    v_BGKD: Tensor,
    call: AttentionCall,
    *,
    sinks_H: Tensor | None = None,
    visible_keys_BK: Tensor | None = None,
    distance_bias_HR: Tensor | None = None,
    dense: bool = False,
) -> tuple[Tensor, Tensor]:
    """PyTorch's own attention in the inputs' dtype, and the log-sum-exp in float32 (float64).

    `scaled_dot_product_attention` with an explicit mask; a sink is one more key of value 0. With
    softcap, which it lacks, or when `dense` is asked: matmul, softmax, matmul, with the scores
    rounded to the dtype, the log-sum-exp's too.
    """
    group = call.group_size
    dtype = torch.float64 if q_BHQD.dtype == torch.float64 else torch.float32
    k_BHKD, v_BHKD = k_BGKD.repeat_interleave(group, 1), v_BGKD.repeat_interleave(group, 1)
    queries = range(call.query_offset, call.query_offset + call.query_length)
    padding = None if visible_keys_BK is None else visible_keys_BK[:, None]
    device = q_BHQD.device
    seen = visible(call.pattern, queries, range(call.key_length), padding, device=device)
    bias = torch.zeros(seen.shape, dtype=q_BHQD.dtype, device=device)
    bias = bias.masked_fill(~seen, -torch.inf)
    bias = bias.expand(call.batch, call.query_heads, -1, -1)
    if distance_bias_HR is not None:
        bias = bias + toeplitz(distance_bias_HR, call).to(bias.dtype)
    if sinks_H is not None:
        column = sinks_H.to(bias.dtype)[:, None, None].expand(*bias.shape[:3], 1)
        bias = torch.cat([bias, column], -1)
        k_BHKD, v_BHKD = (torch.nn.functional.pad(t, (0, 0, 0, 1)) for t in (k_BHKD, v_BHKD))
    raw = (q_BHQD * call.scale) @ k_BHKD.mT
    if call.softcap is not None:
        raw = call.softcap * torch.tanh(raw / call.softcap)
    biased = raw + bias
    if dense or call.softcap is not None:
        out = torch.softmax(biased.to(dtype), -1).nan_to_num().to(q_BHQD.dtype) @ v_BHKD
    else:
        out = torch.nn.functional.scaled_dot_product_attention(
            q_BHQD, k_BHKD, v_BHKD, attn_mask=bias, scale=call.scale
        ).nan_to_num()
    if dense:
        return out, torch.logsumexp(biased.to(dtype), -1)
    single = (q_BHQD.to(dtype) * call.scale) @ k_BHKD.to(dtype).mT
    if call.softcap is not None:
        single = call.softcap * torch.tanh(single / call.softcap)
    return out, torch.logsumexp(single + bias.to(dtype), -1)
