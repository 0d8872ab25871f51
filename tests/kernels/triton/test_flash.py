"""The operator: its gradient against finite differences, its promises to PyTorch's compiler."""

import warnings
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from attnscope.kernels.errors import UnsupportedCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.registry import backend
from attnscope.kernels.triton.flash import flash, flash_operator, rule_arguments
from attnscope.kernels.triton.flash_forward import flash_forward
from attnscope.kernels.triton.flash_rule import documents_of, flash_rule
from tests.shapes import Case, Inputs

SMALL = Case(id="causal", query_heads=2, kv_heads=1, queries=9, keys=9)
CASES = (
    SMALL,
    replace(SMALL, id="window, softcap", softcap=3.0, pattern=pattern("sliding_window", window=4)),
    replace(SMALL, id="sinks, padding", batch=2, sinks=True, padding="left"),
    replace(SMALL, id="bias by distance, softcap", softcap=3.0, distance_bias=True),
    replace(SMALL, id="packed", pattern=pattern("packed", lengths=(2, 4), causal=True)),
)


def leaves(inputs: Inputs) -> list[Tensor]:
    given = [*inputs.tensors, *([] if inputs.sinks_H is None else [inputs.sinks_H])]
    return [tensor.detach().clone().requires_grad_() for tensor in given]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_gradient_is_that_of_finite_differences(case: Case) -> None:
    inputs = case.inputs()

    def attend(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None = None) -> Tensor:
        options = {**inputs.extras, "sinks_H": sinks}
        found = flash(q, k, v, inputs.call, **options)
        assert found.lse_BHQ is not None
        # Rows that see nothing are −inf whatever the inputs are.
        return torch.cat([found.out_BHQD, found.lse_BHQ.nan_to_num(neginf=0)[..., None]], -1)

    with warnings.catch_warnings():
        # It wants float64; steps and bounds here are those of float32.
        warnings.filterwarnings("ignore", message="Input #. requires gradient")
        assert torch.autograd.gradcheck(
            attend, leaves(inputs), eps=2e-2, atol=2e-3, rtol=1e-2, fast_mode=True
        )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_keeps_its_promises_to_the_compiler(case: Case) -> None:
    inputs = case.inputs()
    rule = flash_rule(inputs.call)
    assert rule is not None
    q, k, v, *sinks = leaves(inputs)
    documents_N2 = documents_of(inputs.call, q.device)
    extras = (inputs.visible_keys_BK, documents_N2, inputs.distance_bias_HR)
    given = (q, k, v, sinks[0] if sinks else None, *extras)
    found = torch.library.opcheck(flash_operator, given, rule_arguments(rule))
    assert set(found.values()) == {"SUCCESS"}


@pytest.mark.parametrize(
    "rule", [pattern("causal"), pattern("packed", lengths=(17, 9), causal=True)], ids=str
)
def test_the_compiler_does_not_break_at_it(rule: Pattern) -> None:
    inputs = Case(id="compiled", pattern=rule).inputs()

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return flash(q, k, v, inputs.call).out_BHQD * 2

    compiled = torch.compile(attend, backend="aot_eager", fullgraph=True)
    first, second = leaves(inputs), leaves(inputs)
    answers = compiled(*first), attend(*second)
    assert torch.equal(*answers)
    for answer in answers:
        answer.square().sum().backward()
    for one, other in zip(first, second, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.equal(one.grad, other.grad)


def test_gradients_are_the_same_each_time() -> None:
    inputs = Case(id="again", kv_heads=1).inputs("float16")
    found = []
    for _ in range(2):
        given = leaves(inputs)
        q, k, v = given
        answer = flash(q, k, v, inputs.call)
        found.append(torch.autograd.grad(answer.out_BHQD.float().square().sum(), given))
    for first, second in zip(*found, strict=True):
        assert torch.equal(first, second)


def test_only_what_asks_for_a_gradient_costs_one() -> None:
    inputs = Case(id="quiet").inputs()
    assert not flash(*inputs.tensors, inputs.call).out_BHQD.requires_grad
    plain = flash_forward(*inputs.tensors, inputs.call)
    assert torch.equal(flash(*inputs.tensors, inputs.call).out_BHQD, plain.out_BHQD)


def test_a_gradient_of_the_bias_is_refused_and_never_a_silent_zero() -> None:
    inputs = Case(id="biased", distance_bias=True).inputs()
    bias_HR = inputs.distance_bias_HR
    assert bias_HR is not None
    asked = bias_HR.clone().requires_grad_()
    with pytest.raises(UnsupportedCall, match="give a bias by distance no gradient") as raised:
        flash(*inputs.tensors, inputs.call, distance_bias_HR=asked)
    with torch.no_grad():
        flash(*inputs.tensors, inputs.call, distance_bias_HR=asked)
    # Who is named instead has one.
    assert "sdpa_math" in raised.value.remedy
    found = backend("sdpa_math").run(*inputs.tensors, inputs.call, distance_bias_HR=asked)
    (given,) = torch.autograd.grad(found.out_BHQD.square().sum(), [asked])
    assert given.abs().max() > 0


def test_a_memory_tracker_sees_its_shapes_without_running_it() -> None:
    inputs = Case(id="fake", value_dim=24).inputs("float16")
    with FakeTensorMode() as mode:
        q, k, v = (mode.from_tensor(tensor) for tensor in inputs.tensors)
        found = flash(q, k, v, inputs.call)
    assert found.lse_BHQ is not None
    assert tuple(found.out_BHQD.shape) == (1, 4, 33, 24)
    assert found.out_BHQD.dtype == torch.float16
    assert found.out_BHQD.stride() == flash_forward(*inputs.tensors, inputs.call).out_BHQD.stride()
    assert (tuple(found.lse_BHQ.shape), found.lse_BHQ.dtype) == ((1, 4, 33), torch.float32)


def test_the_backend_trains_a_model() -> None:
    inputs = Case(id="training").inputs()
    q, k, v = leaves(inputs)
    backend("triton").run(q, k, v, inputs.call).out_BHQD.sum().backward()
    for leaf in (q, k, v):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
        assert leaf.grad.abs().max() > 0
