"""Linear attention as an operator: its gradient, its shapes, and the backends that call it."""

import pytest
import torch

from attnscope.kernels.approximate.feature_maps import log_elu_plus_one
from attnscope.kernels.approximate.linear import linear_attention
from attnscope.kernels.backends.performer import Performer
from attnscope.kernels.registry import backend
from attnscope.kernels.triton import linear_forward
from attnscope.kernels.triton.linear import linear, linear_operator
from tests.approximations import elu_plus_one
from tests.shapes import Case

CASE = Case(id="operator", batch=2, queries=20, keys=30, padding="left")


@pytest.mark.parametrize("elu", [True, False])
def test_the_gradient_is_that_of_the_same_function_in_pytorch(elu: bool) -> None:
    inputs = CASE.inputs()
    q, k, v = inputs.tensors
    tensors = [q, k, v] if elu else [elu_plus_one(q), elu_plus_one(k), v]
    tensors = [tensor.requires_grad_() for tensor in tensors]
    seen_BK = inputs.visible_keys_BK
    assert seen_BK is not None
    options = {"causal": True, "query_offset": 10, "visible_keys_BK": seen_BK}
    out = linear(*tensors, elu=elu, **options)
    dout = torch.randn(out.shape, generator=torch.Generator().manual_seed(3))
    found = torch.autograd.grad(out, tensors, dout)

    # Written out: a dense matrix of weights.
    q, k, v = (tensor.double() for tensor in tensors)
    k, v = (tensor.repeat_interleave(2, 1) for tensor in (k, v))
    phi = elu_plus_one if elu else torch.Tensor.clone
    weights = phi(q) @ phi(k).mT
    rule = torch.arange(30) <= torch.arange(20)[:, None] + 10
    weights = weights * (rule & seen_BK[:, None, None])
    dense = weights @ v / weights.sum(-1, keepdim=True)
    expected = torch.autograd.grad(dense, tensors, dout.double())
    torch.testing.assert_close(out, dense.float())
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_the_operator_keeps_pytorchs_rules() -> None:
    inputs = CASE.inputs()
    tensors = [tensor.requires_grad_() for tensor in inputs.tensors]
    arguments = (*tensors, inputs.visible_keys_BK, True, True, 10)
    torch.library.opcheck(linear_operator, arguments, test_utils="test_schema")
    found = torch.library.opcheck(linear_operator, arguments, test_utils="test_faketensor")
    assert set(found.values()) == {"SUCCESS"}


@pytest.mark.parametrize("found", [backend("linear"), Performer(features=40)], ids=lambda b: b.name)
@pytest.mark.parametrize("case", [CASE, Case(id="full", query_offset=0)], ids=lambda case: case.id)
def test_the_backends_run_the_kernel_and_answer_as_in_pytorch(
    found, case: Case, monkeypatch
) -> None:
    inputs = case.inputs()
    compiled = found.run(*inputs.tensors, inputs.call, **inputs.extras).out_BHQD
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    launches: list[int] = []
    monkeypatch.setattr(linear_forward, "linear_answer_kernel", lambda *_: launches.append(1))
    plain = found.run(*inputs.tensors, inputs.call, **inputs.extras).out_BHQD
    assert not launches
    assert not torch.equal(compiled, plain)
    torch.testing.assert_close(compiled, plain)


def test_what_the_kernel_does_not_take_runs_in_pytorch() -> None:
    inputs = Case(id="wide", queries=5, keys=5, head_dim=130).inputs()
    found = backend("linear").run(*inputs.tensors, inputs.call).out_BHQD
    plain = linear_attention(*inputs.tensors, log_elu_plus_one, causal=True)
    assert torch.equal(found, plain)
