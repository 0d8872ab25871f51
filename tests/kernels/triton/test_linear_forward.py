"""The linear-attention kernels against the naive double sum in float64, in Triton's interpreter."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from attnscope.kernels.approximate.feature_maps import (
    log_positive_random,
    orthogonal_projection,
    stable_features,
)
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.triton.linear_forward import linear_forward
from attnscope.kernels.triton.linear_plan import LinearConfig, fits, linear_config
from tests.approximations import elu_plus_one, kernel_attention
from tests.kernels.approximate.test_linear import TAKEN
from tests.shapes import Case, Inputs
from tests.tolerance import assert_as_good_as

# Small enough that every case has several tiles, and the long ones several chunks.
SMALL = LinearConfig(
    chunk=32,
    block_queries=16,
    block_keys=16,
    block_features=16,
    block_values=16,
    num_warps=4,
    num_stages=1,
)
LONG = (
    Case(id="chunks", query_heads=2, kv_heads=1, queries=150, keys=150),
    Case(id="chunks, full", queries=70, keys=110, pattern=pattern("full"), query_heads=2),
    Case(id="a cache of chunks", batch=2, queries=20, keys=120, query_offset=77, padding="left"),
    Case(id="queries past the chunks", queries=90, keys=40, query_offset=0, query_heads=2),
    # More chunks than their sums are taken of at once.
    Case(id="many chunks", query_heads=1, kv_heads=1, queries=3, keys=600, query_offset=580),
)


def attend(inputs: Inputs, config: LinearConfig | None = SMALL, *, elu: bool = True) -> Tensor:
    return linear_forward(
        *inputs.tensors,
        elu=elu,
        causal=inputs.call.pattern.key == "causal",
        query_offset=inputs.call.query_offset,
        visible_keys_BK=inputs.visible_keys_BK,
        config=config,
    )


def assert_right(inputs: Inputs, config: LinearConfig | None = SMALL, *, elu: bool = True) -> None:
    causal = inputs.call.pattern.key == "causal"
    naive = partial(kernel_attention, inputs, elu_plus_one if elu else torch.Tensor.clone)
    theirs = naive(causal=causal, dtype=inputs.call.torch_dtype)
    assert_as_good_as(attend(inputs, config, elu=elu), naive(causal=causal), theirs)


# One query head a kv head tells nothing more, and the interpreter is slow.
FEW = [
    case for case in TAKEN if case.id not in ("multi-head", "odd lengths", "causal", "head_dim 80")
]


@pytest.mark.parametrize("case", [*FEW, *LONG], ids=lambda case: case.id)
def test_equals_the_double_sum(case: Case) -> None:
    assert_right(case.inputs())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    "case",
    [Case(id="wide", queries=20, keys=20, query_heads=1, kv_heads=1, head_dim=40), *LONG[1:3]],
    ids=lambda case: case.id,
)
def test_equals_the_double_sum_in_half_precision(case: Case, dtype) -> None:
    assert_right(case.inputs(dtype))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_takes_features_that_are_given(dtype) -> None:
    case = Case(id="given", batch=2, queries=50, keys=70, query_heads=2, padding="left")
    inputs = case.inputs(dtype)
    log_features = partial(
        log_positive_random,
        projection_FD=orthogonal_projection(40, 16, 0).float(),
        scale=inputs.call.scale,
    )
    q_BHQF, k_BGKF = stable_features(
        inputs.q_BHQD, inputs.k_BGKD, log_features, inputs.visible_keys_BK
    )
    assert_right(replace(inputs, q_BHQD=q_BHQF, k_BGKD=k_BGKF), elu=False)


def test_equals_the_double_sum_as_it_ships() -> None:
    case = Case(id="ships", queries=40, keys=300, query_heads=1, kv_heads=1)
    assert_right(case.inputs("float16"), None)


def test_sums_that_leave_the_range_of_float16_do_no_harm() -> None:
    case = Case(id="large", query_heads=1, kv_heads=1, queries=3, keys=500, query_offset=497)
    inputs = case.inputs("float16")
    # A weight would be 16 · 60 · 60, and the sum of 500 of them times the values far more.
    inputs = replace(inputs, **{name: getattr(inputs, name) + 60 for name in ("q_BHQD", "k_BGKD")})
    exact = kernel_attention(inputs, elu_plus_one, causal=True)
    found = attend(inputs)
    torch.testing.assert_close(found.double(), exact, atol=2e-3, rtol=2e-3)


def test_never_reads_what_is_hidden() -> None:
    case = Case(
        id="poison", query_heads=1, kv_heads=1, queries=20, keys=90, query_offset=45, padding="left"
    )
    inputs = case.inputs("float16")
    clean = attend(inputs)
    assert inputs.visible_keys_BK is not None
    hidden_BK = ~inputs.visible_keys_BK | (torch.arange(90) >= 65)
    k, v = (t.masked_fill(hidden_BK[:, None, :, None], torch.nan) for t in inputs.tensors[1:])
    assert torch.equal(attend(replace(inputs, k_BGKD=k, v_BGKD=v)), clean)


def test_rows_that_see_nothing_are_zero() -> None:
    case = Case(id="nothing", batch=2, query_heads=2, queries=40, keys=40, padding="left")
    inputs = case.inputs()
    assert inputs.visible_keys_BK is not None
    inputs.visible_keys_BK[1] = False
    found = attend(inputs)
    assert (found[0, :, :5] == 0).all()
    assert (found[0, :, 5:] != 0).any(-1).all()
    assert (found[1] == 0).all()


@pytest.mark.parametrize("strided", ["heads apart", "columns apart"])
def test_any_strides(strided: str) -> None:
    inputs = Case(
        id="strides", batch=2, query_heads=2, queries=17, keys=40, padding="right"
    ).inputs()

    def apart(tensor: Tensor) -> Tensor:
        if strided == "heads apart":
            return tensor.transpose(1, 2).contiguous().transpose(1, 2)
        return tensor.repeat_interleave(2, -1)[..., ::2]

    q, k, v = (apart(tensor) for tensor in inputs.tensors)
    assert not any(tensor.is_contiguous() for tensor in (q, k, v))
    found = attend(replace(inputs, q_BHQD=q, k_BGKD=k, v_BGKD=v))
    assert torch.equal(found, attend(inputs))


def test_offsets_past_two_to_the_31() -> None:
    inputs = Case(id="far", query_heads=1, kv_heads=1, queries=40, keys=40).inputs("float16")
    # Rows 2^26 elements apart, in memory that is reserved and, but for them, never touched.
    apart = 2**26
    memory = torch.from_numpy(np.empty(40 * apart, np.float16))
    q, k, v = (memory.as_strided((1, 1, 40, 16), (1, 1, apart, 1), at) for at in (0, 16, 32))
    for far, near in zip((q, k, v), inputs.tensors, strict=True):
        far.copy_(near)
    found = attend(replace(inputs, q_BHQD=q, k_BGKD=k, v_BGKD=v))
    assert torch.equal(found, attend(inputs))


def test_the_output_lies_as_models_want_it_next() -> None:
    assert attend(Case(id="layout").inputs()).transpose(1, 2).is_contiguous()


def test_a_configuration_is_chosen_for_all_that_fits() -> None:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for features in (1, 16, 80, 128, 256):
            if not fits(features, dtype):
                assert (features, dtype) == (256, torch.float32)
                continue
            config = linear_config(features, 80, dtype)
            assert config.chunk % config.block_keys == 0
            assert config.block_values <= 128
            assert min(config.block_queries, config.block_keys, config.block_features) >= 16
    assert not fits(257, torch.bfloat16)
