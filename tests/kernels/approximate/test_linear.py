"""Sums over chunks against the naive double sum in float64, for both kinds of features."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from attnscope.kernels.approximate.feature_maps import (
    log_elu_plus_one,
    log_positive_random,
    orthogonal_projection,
)
from attnscope.kernels.approximate.linear import linear_attention
from attnscope.kernels.patterns.catalogue import pattern
from tests.approximations import elu_plus_one, favor, kernel_attention
from tests.inputs import Inputs
from tests.kernels.test_tiled import LargestTensor
from tests.shapes import CASES, Case
from tests.tolerance import assert_as_good_as

LONGER = (
    Case(id="several chunks", queries=40, keys=40),
    Case(id="middle of a cache", queries=20, keys=70, query_offset=33),
    Case(id="queries past the keys", queries=40, keys=20, query_offset=0),
    Case(id="cache, padded", batch=3, queries=9, keys=50, padding="left"),
    Case(id="values of one number", value_dim=1),
)
TAKEN = [
    *(
        case
        for case in CASES
        if case.pattern.key in ("causal", "full") and not (case.softcap or case.sinks)
    ),
    *LONGER,
]

Maps = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]


def elu(inputs: Inputs) -> Maps:
    """Ours, and the definition."""
    del inputs
    return log_elu_plus_one, elu_plus_one


def random(inputs: Inputs) -> Maps:
    call = inputs.call
    projection_FD = orthogonal_projection(24, call.head_dim, 0)

    def ours(x_D: Tensor) -> Tensor:
        return log_positive_random(x_D, projection_FD.to(x_D), scale=call.scale)

    def naive(x_D: Tensor) -> Tensor:
        return favor(x_D, projection_FD.to(x_D), call.scale)

    return ours, naive


def attend(inputs: Inputs, log_features, *, chunk: int = 16) -> Tensor:
    return linear_attention(
        *inputs.tensors,
        log_features,
        causal=inputs.call.pattern.key == "causal",
        query_offset=inputs.call.query_offset,
        visible_keys_BK=inputs.visible_keys_BK,
        chunk=chunk,
    )


# In float64 and float16 PyTorch's own exponentials of large exponents are no measure.
@pytest.mark.parametrize(
    ("maps", "dtype", "chunk"),
    [
        (elu, "float64", 8),
        (elu, "float32", 128),
        (elu, "float16", 16),
        (elu, "bfloat16", 16),
        (random, "float32", 16),
        (random, "bfloat16", 128),
    ],
)
@pytest.mark.parametrize("case", TAKEN, ids=lambda case: case.id)
def test_equals_the_double_sum(case: Case, maps, dtype, chunk: int) -> None:
    inputs = case.inputs(dtype)
    ours, naive = maps(inputs)
    causal = case.pattern.key == "causal"
    exact = kernel_attention(inputs, naive, causal=causal)
    theirs = kernel_attention(inputs, naive, causal=causal, dtype=inputs.call.torch_dtype)
    assert_as_good_as(attend(inputs, ours, chunk=chunk), exact, theirs)


@pytest.mark.parametrize("maps", [elu, random])
@pytest.mark.parametrize(
    "case",
    [
        Case(id="causal", query_heads=2, queries=4, keys=6, head_dim=2, value_dim=1),
        Case(id="padded", query_heads=2, kv_heads=1, queries=7, keys=7, head_dim=2, padding="left"),
        Case(id="full", query_heads=2, queries=3, keys=4, head_dim=2, pattern=pattern("full")),
    ],
    ids=lambda case: case.id,
)
def test_the_gradient_is_that_of_finite_differences(case: Case, maps) -> None:
    inputs = case.inputs("float64")
    ours, _ = maps(inputs)
    leaves = [tensor.requires_grad_() for tensor in inputs.tensors]

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(replace(inputs, q_BHQD=q, k_BGKD=k, v_BGKD=v), ours, chunk=3)

    assert torch.autograd.gradcheck(run, leaves)


def test_never_reads_what_is_hidden() -> None:
    inputs = Case(id="poison", batch=2, queries=20, keys=60, query_offset=20, padding="left")
    inputs = inputs.inputs()
    clean = attend(inputs, log_elu_plus_one)
    assert inputs.visible_keys_BK is not None
    hidden_BK = ~inputs.visible_keys_BK | (torch.arange(60) >= 40)
    k, v = (t.masked_fill(hidden_BK[:, None, :, None], torch.nan) for t in inputs.tensors[1:])
    found = attend(replace(inputs, k_BGKD=k, v_BGKD=v), log_elu_plus_one)
    assert torch.equal(found, clean)


def test_rows_that_see_nothing_are_zero() -> None:
    inputs = Case(id="nothing", batch=2, padding="left").inputs()
    assert inputs.visible_keys_BK is not None
    inputs.visible_keys_BK[1] = False
    found = attend(inputs, log_elu_plus_one)
    assert (found[0, :, :5] == 0).all()
    assert (found[0, :, 5:] != 0).any(-1).all()
    assert (found[1] == 0).all()


@pytest.mark.parametrize("length", [256, 1024])
def test_holds_a_chunk_and_no_repeated_key(length: int) -> None:
    inputs = Case(id="long", queries=length, keys=length, query_heads=8, head_dim=32).inputs()
    with LargestTensor() as watched:
        attend(inputs, log_elu_plus_one, chunk=64)
    # The output; weights within a chunk are 8 · 64 · 64, less than 8 · length · 32.
    assert watched.elements == inputs.q_BHQD.numel()


def test_survives_features_that_overflow_an_exponential() -> None:
    inputs = Case(id="large", queries=40, keys=40).inputs()
    # Exponents of several hundred either way: exp of them is 0 or infinite in float32.
    inputs = replace(inputs, q_BHQD=inputs.q_BHQD * 30, k_BGKD=inputs.k_BGKD * 30)
    projection_FD = orthogonal_projection(24, 16, 0)
    log_features = partial(log_positive_random, projection_FD=projection_FD, scale=0.25)
    wide = replace(
        inputs,
        q_BHQD=inputs.q_BHQD.double(),
        k_BGKD=inputs.k_BGKD.double(),
        v_BGKD=inputs.v_BGKD.double(),
    )
    # One key at a time: nothing is lost to a larger one of its chunk.
    exact = attend(wide, log_features, chunk=1)
    single = partial(log_positive_random, projection_FD=projection_FD.float(), scale=0.25)
    found = attend(inputs, single, chunk=1)
    assert exact.isfinite().all()
    torch.testing.assert_close(found.double(), exact, atol=1e-2, rtol=1e-2)
