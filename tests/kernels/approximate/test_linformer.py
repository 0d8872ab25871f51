"""Linformer against its formula in float64, every projected row a sum over visible keys."""

from dataclasses import replace

import pytest
import torch

from attnscope.kernels.approximate.linformer import length_projection, linformer
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.reference import reference
from tests.approximations import projected_attention
from tests.inputs import Inputs
from tests.shapes import CASES, Case
from tests.tolerance import assert_as_good_as

FULL = [case for case in CASES if case.pattern.key == "full" and not case.sinks]


def attend(inputs: Inputs, projection_KR: torch.Tensor) -> torch.Tensor:
    return linformer(
        *inputs.tensors,
        projection_KR,
        scale=inputs.call.scale,
        visible_keys_BK=inputs.visible_keys_BK,
    )


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("rank", [1, 8, 50])
@pytest.mark.parametrize("case", FULL, ids=lambda case: case.id)
def test_equals_its_formula(case: Case, rank: int, dtype) -> None:
    inputs = case.inputs(dtype)
    projection_KR = length_projection(case.keys, rank, 0)
    exact = projected_attention(inputs, projection_KR)
    theirs = projected_attention(inputs, projection_KR, inputs.call.torch_dtype)
    assert_as_good_as(attend(inputs, projection_KR), exact, theirs)


def test_projecting_to_the_keys_themselves_is_attention() -> None:
    inputs = Case(id="identity", pattern=pattern("full")).inputs("float64")
    found = attend(inputs, torch.eye(33))
    torch.testing.assert_close(found, reference(*inputs.tensors, inputs.call).out_BHQD)


def test_a_projection_is_seeded_and_a_position_keeps_its_row() -> None:
    short, long = (length_projection(length, 16, 3) for length in (20, 5000))
    assert torch.equal(short, long[:20])
    assert not torch.equal(short, length_projection(20, 16, 4))
    # Of variance 1 / rank, which keeps lengths on average (Johnson and Lindenstrauss).
    assert float(long.var()) == pytest.approx(1 / 16, rel=4 * (2 / long.numel()) ** 0.5)
    assert abs(float(long.mean())) < 4 * (1 / 16 / long.numel()) ** 0.5


def test_what_is_hidden_adds_nothing_and_nothing_visible_gives_zero() -> None:
    inputs = Case(id="poison", batch=2, padding="left", pattern=pattern("full")).inputs()
    projection_KR = length_projection(33, 8, 0)
    clean = attend(inputs, projection_KR)
    assert inputs.visible_keys_BK is not None
    hidden = ~inputs.visible_keys_BK[:, None, :, None]
    k, v = (tensor.masked_fill(hidden, torch.nan) for tensor in inputs.tensors[1:])
    assert torch.equal(attend(replace(inputs, k_BGKD=k, v_BGKD=v), projection_KR), clean)
    blind = replace(inputs, visible_keys_BK=torch.zeros(2, 33, dtype=torch.bool))
    assert (attend(blind, projection_KR) == 0).all()


def test_it_has_a_gradient() -> None:
    case = Case(id="grad", queries=5, keys=6, head_dim=3, pattern=pattern("full"))
    inputs = case.inputs("float64")
    projection_KR = length_projection(6, 4, 0)
    leaves = [tensor.requires_grad_() for tensor in inputs.tensors]

    def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return linformer(q, k, v, projection_KR, scale=0.5)

    assert torch.autograd.gradcheck(run, leaves)
