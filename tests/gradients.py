"""The oracle of the backward pass, and the error that PyTorch itself makes in it.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from attnscope.kernels.reference import reference
from attnscope.kernels.scores import visible
from tests.shapes import Inputs
from tests.tolerance import toeplitz

Found = tuple[Tensor, Tensor, Tensor, Tensor | None]
"""Gradients of q, k, v and the sinks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """Gradients of an output and of its log-sum-exp, 0 where that is −inf: a constant has none."""

    dout_BHQD: Tensor
    dlse_BHQ: Tensor


def upstream(inputs: Inputs) -> Upstream:
    """Random ones, of the inputs' dtype; the log-sum-exp's is float32."""
    call = inputs.call
    generator = torch.Generator().manual_seed(7)
    rows = call.batch, call.query_heads, call.query_length
    dout_BHQD = torch.randn(*rows, call.value_dim, generator=generator).to(call.torch_dtype)
    blind_BHQ = reference(*inputs.tensors, call, **inputs.extras).lse_BHQ == -torch.inf
    dlse_BHQ = torch.randn(*rows, generator=generator).masked_fill(blind_BHQ, 0)
    return Upstream(dout_BHQD=dout_BHQD, dlse_BHQ=dlse_BHQ)


def exact_gradients(inputs: Inputs, given: Upstream) -> Found:
    """PyTorch's derivative of dense attention in float64."""
    call = inputs.call
    leaves = [tensor.double().requires_grad_() for tensor in inputs.tensors]
    if inputs.sinks_H is not None:
        leaves.append(inputs.sinks_H.double().requires_grad_())
    q_BHQD, k_BHKD, v_BHKD = leaves[0], *(_repeated(leaf, inputs) for leaf in leaves[1:3])
    scores_BHQK = q_BHQD @ k_BHKD.mT * call.scale
    if call.softcap is not None:
        scores_BHQK = call.softcap * torch.tanh(scores_BHQK / call.softcap)
    scores_BHQK = scores_BHQK + _bias(inputs)
    seen_BHQK = _seen(inputs)
    # A large finite number: the derivative of a row of −inf is not a number.
    scores_BHQK = scores_BHQK.masked_fill(~seen_BHQK, -1e30)
    if inputs.sinks_H is not None:
        column = leaves[3][:, None, None].expand(*scores_BHQK.shape[:3], 1)
        scores_BHQK = torch.cat([scores_BHQK, column], -1)
    weights_BHQK = scores_BHQK.softmax(-1)[..., : call.key_length].masked_fill(~seen_BHQK, 0.0)
    total = (weights_BHQK @ v_BHKD * given.dout_BHQD).sum()
    total = total + (scores_BHQK.logsumexp(-1) * given.dlse_BHQ).sum()
    found = torch.autograd.grad(total, leaves)
    return found[0], found[1], found[2], found[3] if len(found) > 3 else None


def pytorch_gradients(inputs: Inputs, given: Upstream) -> Found:
    """What PyTorch makes of flash attention's formula (arXiv 2205.14135 §B.2) in the inputs' dtype.

    From what a forward pass leaves: an output of rounded weights, and a log-sum-exp rounded to
    float32, as in every flash kernel.
    """
    call, dtype = inputs.call, inputs.call.torch_dtype
    lse_BHQ = reference(*inputs.tensors, call, **inputs.extras).lse_BHQ.float()
    q_BHQD, dout_BHQD = inputs.q_BHQD, given.dout_BHQD
    k_BHKD, v_BHKD = (_repeated(tensor, inputs) for tensor in inputs.tensors[1:])
    scores_BHQK = (q_BHQD @ k_BHKD.mT).float() * call.scale
    slopes_BHQK = torch.ones_like(scores_BHQK)
    if call.softcap is not None:
        tanh_BHQK = torch.tanh(scores_BHQK / call.softcap)
        slopes_BHQK, scores_BHQK = 1 - tanh_BHQK**2, call.softcap * tanh_BHQK
    scores_BHQK = scores_BHQK + _bias(inputs)
    weights_BHQK = (scores_BHQK - lse_BHQ[..., None]).exp().where(_seen(inputs), 0)
    out_BHQD = weights_BHQK.to(dtype) @ v_BHKD
    delta_BHQ = (out_BHQD.float() * dout_BHQD.float()).sum(-1) - given.dlse_BHQ
    dweights_BHQK = (dout_BHQD @ v_BHKD.mT).float()
    dscores_BHQK = weights_BHQK * (dweights_BHQK - delta_BHQ[..., None]) * slopes_BHQK
    dscores_BHQK = (dscores_BHQK * call.scale).to(dtype)
    dsinks_H = None
    if inputs.sinks_H is not None:
        dsinks_H = -((inputs.sinks_H[:, None] - lse_BHQ).exp() * delta_BHQ).sum((0, 2))
    return (
        dscores_BHQK @ k_BHKD,
        _summed(dscores_BHQK.mT @ q_BHQD, inputs),
        _summed(weights_BHQK.to(dtype).mT @ dout_BHQD, inputs),
        dsinks_H,
    )


def _repeated(tensor_BGKD: Tensor, inputs: Inputs) -> Tensor:
    return tensor_BGKD.repeat_interleave(inputs.call.group_size, 1)


def _summed(tensor_BHKD: Tensor, inputs: Inputs) -> Tensor:
    return tensor_BHKD.unflatten(1, (-1, inputs.call.group_size)).sum(2)


def _bias(inputs: Inputs) -> Tensor | float:
    """What is added to every pair's score, `[H, Q, K]`; 0 without a bias by distance."""
    bias_HR = inputs.distance_bias_HR
    return 0.0 if bias_HR is None else toeplitz(bias_HR, inputs.call)


def _seen(inputs: Inputs) -> Tensor:
    call, padding = inputs.call, inputs.visible_keys_BK
    return visible(
        call.pattern,
        range(call.query_offset, call.query_offset + call.query_length),
        range(call.key_length),
        None if padding is None else padding[:, None],
    )
