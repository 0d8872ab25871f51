"""The backend `linformer`: held to its definition, what it refuses, what it costs."""

from dataclasses import replace

import pytest
import torch

from attnscope.kernels.approximate.linformer import length_projection
from attnscope.kernels.backends.backend import io_bytes
from attnscope.kernels.backends.linformer import Linformer
from attnscope.kernels.errors import InvalidCall, UnsupportedCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.registry import backend
from tests.approximations import projected_attention
from tests.kernels.backends.test_costs import peak_bytes
from tests.shapes import CASES, Case
from tests.tolerance import assert_as_good_as

CPU = torch.device("cpu")
FULL = Case(id="full", pattern=pattern("full"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_is_its_own_definition(case: Case) -> None:
    inputs, found = case.inputs(), Linformer(rank=12, seed=4)
    if found.refuses(inputs.call, CPU) is not None:
        return
    projection_KR = length_projection(case.keys, 12, 4)
    exact = projected_attention(inputs, projection_KR)
    theirs = projected_attention(inputs, projection_KR, torch.float32)
    answer = found.run(*inputs.tensors, inputs.call, **inputs.extras)
    assert answer.lse_BHQ is None
    assert_as_good_as(answer.out_BHQD, exact, theirs)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (Case(id="causal"), "the future in a causal model"),
        (Case(id="a cache", queries=1, keys=41), "with a cache or without"),
        (Case(id="window", pattern=pattern("local", window=8)), "this is local"),
        (replace(FULL, softcap=2.0), "none can be bounded"),
        (replace(FULL, sinks=True), "no softmax that a sink logit could join"),
        (replace(FULL, distance_bias=True), "no bias by distance can be added"),
    ],
    ids=lambda value: value.id if isinstance(value, Case) else None,
)
def test_refuses_with_the_reason_and_a_remedy(case: Case, reason: str) -> None:
    inputs = case.inputs()
    with pytest.raises(UnsupportedCall, match=reason) as raised:
        Linformer().run(*inputs.tensors, inputs.call, **inputs.extras)
    assert raised.value.remedy.endswith(".")


def test_parameters_are_kept_and_checked() -> None:
    assert backend("linformer").__dict__ == {"rank": 256, "seed": 0}
    with pytest.raises(InvalidCall, match="rank must be at least 1, got -3"):
        Linformer(rank=-3)
    inputs = FULL.inputs()
    first, other = (
        Linformer(rank=8, seed=seed).run(*inputs.tensors, inputs.call).out_BHQD for seed in (0, 1)
    )
    assert not torch.equal(first, other)


def test_costs_against_worked_figures() -> None:
    call = replace(FULL, queries=4096, keys=4096, query_heads=8, kv_heads=4, head_dim=64)
    call = call.inputs().call
    found = Linformer(rank=128).cost(call)
    projecting = 2 * 4 * 4096 * 128 * (64 + 64)
    assert found.flops == projecting + 2 * 8 * 4096 * 128 * (64 + 64)
    longer = Linformer(rank=128).cost(replace(call, query_length=8192, key_length=8192))
    assert longer.flops == 2 * found.flops


def test_the_workspace_is_what_is_really_held() -> None:
    inputs = replace(FULL, queries=64, keys=4096, query_heads=2, kv_heads=1, head_dim=32).inputs()
    found = Linformer(rank=256)
    held = peak_bytes(lambda: found.run(*inputs.tensors, inputs.call))
    measured = held - io_bytes(inputs.call)[1]
    assert measured == pytest.approx(found.cost(inputs.call).workspace_bytes, rel=0.1)
