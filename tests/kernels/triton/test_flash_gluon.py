"""The kernel in Gluon against the reference, in the simulator: whatever happens first."""

from dataclasses import replace

import pytest
import torch

from attnscope.kernels.call import Dtype
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.reference import reference
from attnscope.kernels.triton import flash_gluon
from attnscope.kernels.triton.configurations import FlashConfig
from attnscope.kernels.triton.flash_choice import gluon_misfit
from attnscope.kernels.triton.flash_gluon import launch_flash_gluon
from attnscope.kernels.triton.flash_rule import flash_rule
from tests.inputs import Inputs
from tests.kernels.triton.gluon_simulator import simulated
from tests.shapes import CASES, Case
from tests.tolerance import assert_as_good_as, pytorch_attention

# As wide as the kernel's rows, and keys short enough that most cases have several tiles.
SMALL = FlashConfig(block_queries=128, block_keys=16, num_warps=4, num_stages=2)


@pytest.fixture(autouse=True)
def _three_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a device with three multiprocessors, where every case takes turns."""
    monkeypatch.setattr(flash_gluon, "multiprocessors", lambda device: 3)


def answered(
    inputs: Inputs, config: FlashConfig = SMALL, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    rule = flash_rule(inputs.call)
    assert rule is not None
    assert gluon_misfit(*inputs.tensors, rule, has_sinks=False, has_padding=False) is None
    return simulated(launch_flash_gluon, seed)(*inputs.tensors, rule, config)


def assert_right(inputs: Inputs, config: FlashConfig = SMALL, seed: int = 0) -> None:
    exact = reference(*inputs.tensors, inputs.call)
    theirs, theirs_lse = pytorch_attention(*inputs.tensors, inputs.call)
    out_BHQD, lse_BHQ = answered(inputs, config, seed)
    assert_as_good_as(out_BHQD, exact.out_BHQD, theirs)
    assert_as_good_as(lse_BHQ, exact.lse_BHQ, theirs_lse)


def taken(case: Case) -> bool:
    """Whether the kernel takes the case once its heads are 64 wide."""
    plain = not case.sinks and case.softcap is None and case.padding is None
    rule = flash_rule(case.inputs().call)
    return plain and not case.id.startswith("packed") and rule is not None and not rule.first_keys


TAKEN = [replace(case, head_dim=64, value_dim=None) for case in CASES if taken(case)]


@pytest.mark.parametrize("case", TAKEN, ids=lambda case: case.id)
def test_equals_the_reference(case: Case) -> None:
    assert_right(case.inputs("bfloat16"), seed=len(case.id))


LONGER = tuple(
    replace(case, head_dim=64)
    for case in (
        Case(id="causal over blocks", batch=2, queries=150, keys=150),
        Case(id="whole tiles", queries=128, keys=128, pattern=pattern("full")),
        Case(id="window", queries=300, keys=300, pattern=pattern("sliding_window", window=50)),
        Case(id="local", queries=140, keys=190, pattern=pattern("local", window=41)),
        Case(id="middle of a cache", queries=70, keys=190, query_offset=53),
        Case(id="queries past the keys", queries=140, keys=20, query_offset=0),
        Case(
            id="a window that left the keys behind",
            queries=140,
            keys=20,
            query_offset=10,
            pattern=pattern("sliding_window", window=9),
        ),
        Case(id="heads of three groups", query_heads=6, kv_heads=3, queries=70, keys=90),
    )
)


@pytest.mark.parametrize("case", LONGER, ids=lambda case: case.id)
def test_equals_the_reference_over_many_tiles(case: Case) -> None:
    assert_right(case.inputs("float16"), seed=len(case.id))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(("keys", "stages"), [(32, 3), (64, 2), (128, 2)])
def test_every_cut(keys: int, stages: int, dtype: Dtype) -> None:
    inputs = Case(id="cut", head_dim=128, queries=200, keys=200).inputs(dtype)
    assert_right(inputs, replace(SMALL, block_keys=keys, num_stages=stages))


ORDERS = Case(id="order", query_heads=2, kv_heads=1, head_dim=64, queries=300, keys=100)


def test_the_order_in_which_things_happen_changes_no_bit() -> None:
    inputs = ORDERS.inputs("bfloat16")
    first = answered(inputs)
    for seed in range(1, 60):
        found = answered(inputs, seed=seed)
        assert all(torch.equal(mine, same) for mine, same in zip(found, first, strict=True))


def test_heads_as_models_hand_them_over() -> None:
    inputs = Case(id="transposed", batch=2, head_dim=64).inputs("float16")
    q, k, v = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in inputs.tensors)
    assert_right(replace(inputs, q_BHQD=q, k_BGKD=k, v_BGKD=v))


def test_one_stage_is_too_few() -> None:
    with pytest.raises(AssertionError, match="without end"):
        answered(ORDERS.inputs("bfloat16"), replace(SMALL, num_stages=1))
