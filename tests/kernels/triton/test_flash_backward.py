"""The backward kernels against PyTorch's derivative of dense attention, in Triton's interpreter."""

from dataclasses import replace

import pytest
import torch

from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.triton.configurations import FlashConfig
from attnscope.kernels.triton.flash_backward import Gradients, flash_backward
from attnscope.kernels.triton.flash_forward import launch_flash_forward
from attnscope.kernels.triton.flash_rule import documents_of, flash_rule
from tests.gradients import Upstream, exact_gradients, pytorch_gradients, upstream
from tests.shapes import BAND_BIAS_CASES, BIASED_OVER_TILES, PACKED, Case, Inputs, every_case
from tests.tolerance import assert_as_good_as

SMALL = FlashConfig(block_queries=16, block_keys=16, num_warps=4, num_stages=1)
WIDE = FlashConfig(block_queries=32, block_keys=16, num_warps=4, num_stages=1)
TALL = FlashConfig(block_queries=16, block_keys=32, num_warps=4, num_stages=1)


def gradients(
    inputs: Inputs,
    given: Upstream,
    query_config: FlashConfig | None = SMALL,
    key_config: FlashConfig | None = SMALL,
) -> Gradients:
    rule = flash_rule(inputs.call)
    assert rule is not None
    documents_N2 = documents_of(inputs.call, inputs.q_BHQD.device)
    extras = inputs.sinks_H, inputs.visible_keys_BK, documents_N2, inputs.distance_bias_HR
    inside = *inputs.tensors, *extras
    out_BHQD, lse_BHQ = launch_flash_forward(*inside, rule, SMALL)
    return flash_backward(
        *inside,
        out_BHQD,
        lse_BHQ,
        given.dout_BHQD,
        given.dlse_BHQ,
        rule,
        query_config=query_config,
        key_config=key_config,
    )


def assert_right(inputs: Inputs, *configs: FlashConfig | None) -> None:
    given = upstream(inputs)
    exact, theirs = exact_gradients(inputs, given), pytorch_gradients(inputs, given)
    found = gradients(inputs, given, *configs)
    ours = found.dq_BHQD, found.dk_BGKD, found.dv_BGKD, found.dsinks_H
    for one, exactly, same_dtype in zip(ours, exact, theirs, strict=True):
        assert (one is None) == (exactly is None)
        if exactly is not None and same_dtype is not None:
            assert_as_good_as(one, exactly, same_dtype)


@every_case()
def test_equals_the_derivative(case: Case) -> None:
    assert_right(case.inputs())


@pytest.mark.parametrize("case", BAND_BIAS_CASES, ids=lambda case: case.id)
def test_equals_the_derivative_with_a_bias_by_distance(case: Case) -> None:
    assert_right(case.inputs())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_equals_the_derivative_with_a_bias_in_half_precision(dtype) -> None:
    assert_right(BAND_BIAS_CASES[-1].inputs(dtype))


@every_case("causal", "head_dim 80", "softcap", "sink logits", "everything at once")
def test_equals_the_derivative_in_float16(case: Case) -> None:
    assert_right(case.inputs("float16"))


@every_case("causal", "softcap", "sink logits", "everything at once")
def test_equals_the_derivative_in_bfloat16(case: Case) -> None:
    assert_right(case.inputs("bfloat16"))


LONGER = (
    Case(id="window over tiles", queries=70, keys=70, pattern=pattern("sliding_window", window=37)),
    Case(id="local over tiles", queries=50, keys=90, pattern=pattern("local", window=41)),
    Case(id="middle of a cache", queries=20, keys=90, query_offset=33),
    Case(
        id="first keys over tiles, causal, padded",
        batch=2,
        queries=60,
        keys=60,
        padding="left",
        pattern=pattern("sinks_window", window=9, sinks=19, causal=True),
    ),
    Case(id="queries past the keys", queries=40, keys=20, query_offset=0),
    *PACKED,
    *BIASED_OVER_TILES,
)


@pytest.mark.parametrize("case", LONGER, ids=lambda case: case.id)
def test_equals_the_derivative_over_many_tiles(case: Case) -> None:
    assert_right(case.inputs(), WIDE, TALL)


def test_tiles_the_other_way_round_and_those_that_ship() -> None:
    inputs = LONGER[0].inputs()
    assert_right(inputs, TALL, WIDE)
    assert_right(inputs, None, None)


def test_keys_hidden_anywhere() -> None:
    inputs = Case(id="holes", batch=3, queries=40, keys=40, padding="left").inputs()
    generator = torch.Generator().manual_seed(0)
    seen_BK = torch.rand(3, 40, generator=generator) < 0.6
    seen_BK[1] = False
    assert_right(replace(inputs, visible_keys_BK=seen_BK))


def test_any_strides() -> None:
    inputs = Case(id="strides", batch=2).inputs()
    q, k, v = (tensor.mT.contiguous().mT for tensor in inputs.tensors)
    assert not q.is_contiguous()
    assert_right(replace(inputs, q_BHQD=q, k_BGKD=k, v_BGKD=v))


def test_a_gradient_that_is_expanded_from_one_number() -> None:
    inputs = Case(id="sum").inputs()
    given = upstream(inputs)
    ones = torch.ones(()).expand_as(given.dout_BHQD)
    expanded = gradients(inputs, Upstream(dout_BHQD=ones, dlse_BHQ=given.dlse_BHQ))
    plain = gradients(inputs, Upstream(dout_BHQD=ones.clone(), dlse_BHQ=given.dlse_BHQ))
    assert torch.equal(expanded.dq_BHQD, plain.dq_BHQD)
    assert torch.equal(expanded.dk_BGKD, plain.dk_BGKD)
