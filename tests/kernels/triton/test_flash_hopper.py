"""The kernel for Hopper against the reference, in Triton's interpreter."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.reference import reference
from attnscope.kernels.triton import flash_hopper
from attnscope.kernels.triton.configurations import HopperConfig
from attnscope.kernels.triton.flash_choice import misfit
from attnscope.kernels.triton.flash_hopper import launch_flash_hopper
from attnscope.kernels.triton.flash_rule import flash_rule
from tests.shapes import CASES, Case, Inputs, every_case
from tests.tolerance import assert_as_good_as, pytorch_attention

# Small enough that most cases have several tiles either way.
PARTS = HopperConfig(
    block_queries=32,
    block_keys=16,
    num_warps=4,
    num_stages=2,
    specialized=False,
    persistent=False,
)
ONE_LOOP = replace(PARTS, specialized=True, persistent=True)
WIDE_KEYS = replace(PARTS, block_queries=16, block_keys=32, persistent=True)


@pytest.fixture(autouse=True)
def _three_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a device with three multiprocessors, where every case takes turns."""
    monkeypatch.setattr(flash_hopper, "multiprocessors", lambda device: 3)


def answered(inputs: Inputs, config: HopperConfig) -> tuple[torch.Tensor, torch.Tensor]:
    rule = flash_rule(inputs.call)
    assert rule is not None
    assert misfit(*inputs.tensors, rule) is None
    extras = (inputs.sinks_H, inputs.visible_keys_BK)
    return launch_flash_hopper(*inputs.tensors, *extras, rule, config)


def assert_right(inputs: Inputs, config: HopperConfig) -> None:
    exact = reference(*inputs.tensors, inputs.call, **inputs.extras)
    theirs, theirs_lse = pytorch_attention(*inputs.tensors, inputs.call, **inputs.extras)
    out_BHQD, lse_BHQ = answered(inputs, config)
    assert_as_good_as(out_BHQD, exact.out_BHQD, theirs)
    assert_as_good_as(lse_BHQ, exact.lse_BHQ, theirs_lse)


TAKEN = [case for case in CASES if not case.id.startswith(("sinks and window", "packed"))]


@pytest.mark.parametrize("case", TAKEN, ids=lambda case: case.id)
def test_equals_the_reference(case: Case) -> None:
    assert_right(case.inputs("float16"), ONE_LOOP if case.padding is None else PARTS)


@every_case("causal", "more keys than queries", "window of a cache", "value_dim over head_dim")
def test_equals_the_reference_in_parts(case: Case) -> None:
    assert_right(case.inputs("float16"), PARTS)


@pytest.mark.parametrize("config", [ONE_LOOP, PARTS], ids=["one loop", "parts"])
@every_case("causal", "softcap")
def test_equals_the_reference_in_bfloat16(case: Case, config: HopperConfig) -> None:
    assert_right(case.inputs("bfloat16"), config)


LONGER = (
    Case(id="causal over tiles", queries=70, keys=70),
    Case(id="window over tiles", queries=70, keys=70, pattern=pattern("sliding_window", window=37)),
    Case(id="local over tiles", queries=50, keys=90, pattern=pattern("local", window=41)),
    Case(id="whole tiles", queries=64, keys=64, pattern=pattern("full")),
    Case(id="window at whole tiles", queries=64, keys=64, pattern=pattern("local", window=20)),
    Case(id="middle of a cache", queries=20, keys=90, query_offset=33),
    Case(id="queries past the keys", queries=40, keys=20, query_offset=0),
    Case(
        id="a window that left the keys behind",
        queries=40,
        keys=20,
        query_offset=10,
        pattern=pattern("sliding_window", window=9),
    ),
)
PADDED = tuple(
    Case(id=f"{padding}, {key}", batch=3, queries=60, keys=60, padding=padding, pattern=shown)
    for padding in ("left", "right")
    for key, shown in (
        ("full", pattern("full")),
        ("window", pattern("sliding_window", window=20)),
    )
)


@pytest.mark.parametrize("config", [ONE_LOOP, WIDE_KEYS], ids=["one loop", "parts"])
@pytest.mark.parametrize("case", LONGER, ids=lambda case: case.id)
def test_equals_the_reference_over_many_tiles(case: Case, config: HopperConfig) -> None:
    assert_right(case.inputs("float16"), config)


@pytest.mark.parametrize("case", PADDED, ids=lambda case: case.id)
def test_padding_over_many_tiles(case: Case) -> None:
    assert_right(case.inputs("float16"), WIDE_KEYS)


def test_keys_hidden_anywhere() -> None:
    inputs = Case(id="holes", batch=3, queries=50, keys=50, padding="left").inputs("float16")
    seen_BK = torch.rand(3, 50, generator=torch.Generator().manual_seed(0)) < 0.6
    seen_BK[1] = False
    assert_right(replace(inputs, visible_keys_BK=seen_BK), WIDE_KEYS)


@pytest.mark.parametrize("padding", ["left", "right"])
def test_what_is_hidden_is_as_if_never_read(padding: Any) -> None:
    # 0 · NaN is NaN: a page that was never written must not be touched, even with weight 0.
    inputs = Case(id="poison", batch=2, queries=40, keys=40, padding=padding).inputs("float16")
    seen_BK = inputs.visible_keys_BK
    assert seen_BK is not None
    seen_BK[0, 20:23] = False
    clean = answered(inputs, WIDE_KEYS)
    k, v = (t.masked_fill(~seen_BK[:, None, :, None], torch.nan) for t in inputs.tensors[1:])
    found = answered(replace(inputs, k_BGKD=k, v_BGKD=v), WIDE_KEYS)
    assert all(torch.equal(mine, same) for mine, same in zip(found, clean, strict=True))


def test_padding_takes_loops_of_its_own() -> None:
    inputs = Case(id="padded", batch=2, padding="left").inputs("float16")
    with pytest.raises(AssertionError, match="loops of its own"):
        answered(inputs, ONE_LOOP)


def test_heads_as_models_hand_them_over() -> None:
    inputs = Case(id="transposed", batch=2).inputs("float16")
    q, k, v = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in inputs.tensors)
    assert_right(replace(inputs, q_BHQD=q, k_BGKD=k, v_BGKD=v), ONE_LOOP)


def test_a_sink_of_minus_infinity_is_none() -> None:
    inputs = Case(id="no sink", sinks=True).inputs("float16")
    assert_right(replace(inputs, sinks_H=torch.full((4,), -torch.inf)), ONE_LOOP)
