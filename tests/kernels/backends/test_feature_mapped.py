"""The backends `linear` and `performer`: held to their definitions, what they refuse, what they cost."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from attnscope.kernels.approximate.feature_maps import orthogonal_projection
from attnscope.kernels.backends.feature_mapped import FeatureMapped
from attnscope.kernels.backends.linear import Linear
from attnscope.kernels.backends.performer import Performer
from attnscope.kernels.call import AttentionCall
from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.reference import reference
from attnscope.kernels.registry import backend
from tests.approximations import elu_plus_one, favor, kernel_attention, published_favor
from tests.inputs import Inputs
from tests.shapes import CASES, Case
from tests.tolerance import assert_as_good_as

CPU = torch.device("cpu")
CALL = Case(id="causal").inputs().call
BOTH = pytest.mark.parametrize("found", [Linear(), Performer()], ids=lambda found: found.name)


def naive(found: FeatureMapped, inputs: Inputs, dtype: torch.dtype) -> Tensor:
    call, causal = inputs.call, inputs.call.pattern.key != "full"
    if not isinstance(found, Performer):
        return kernel_attention(inputs, elu_plus_one, causal=causal, dtype=dtype)
    projection_FD = orthogonal_projection(found.features, call.head_dim, found.seed).to(dtype)
    form = favor if dtype == torch.float64 else published_favor
    feature_map = partial(form, projection_FD=projection_FD, scale=call.scale)
    return kernel_attention(inputs, feature_map, causal=causal, dtype=dtype)


@BOTH
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_is_its_own_definition(found: FeatureMapped, case: Case) -> None:
    inputs = case.inputs("float32")
    if found.refuses(inputs.call, CPU) is not None:
        return
    answer = found.run(*inputs.tensors, inputs.call, **inputs.extras)
    assert answer.lse_BHQ is None
    exact, theirs = (naive(found, inputs, dtype) for dtype in (torch.float64, torch.float32))
    assert_as_good_as(answer.out_BHQD, exact, theirs)


@BOTH
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"softcap": 2.0}, "none can be bounded at 2"),
        ({"has_sinks": True}, "no softmax that a sink logit could join"),
        ({"has_distance_bias": True}, "no bias by distance can be added"),
        ({"pattern": pattern("sliding_window", window=8)}, "sliding window"),
        ({"pattern": pattern("local", window=8)}, "a pattern's gaps"),
        ({"pattern": pattern("sinks_window", window=8, sinks=1)}, "a pattern's gaps"),
    ],
)
def test_refuses_with_the_reason_and_a_remedy(found: FeatureMapped, changes, reason) -> None:
    refusal = found.refuses(replace(CALL, **changes), CPU)
    assert refusal is not None
    assert reason in refusal.reason
    assert refusal.remedy.endswith(".")


def test_performer_refuses_a_scale_without_a_root() -> None:
    refusal = Performer().refuses(replace(CALL, scale=-0.1), CPU)
    assert refusal is not None
    assert "root of the scale" in refusal.reason
    assert Linear().refuses(replace(CALL, scale=-0.1), CPU) is None


@BOTH
def test_takes_a_window_that_hides_nothing(found: FeatureMapped) -> None:
    for window, length in ((33, 33), (99, 33)):
        chosen = pattern("sliding_window", window=window)
        assert found.refuses(replace(CALL, pattern=chosen, query_length=length), CPU) is None


def test_parameters_are_kept_and_checked() -> None:
    assert backend("performer").__dict__ == {"features": 256, "seed": 0}
    with pytest.raises(InvalidCall, match="features must be at least 1, got 0"):
        Performer(features=0)
    inputs = Case(id="seeds").inputs()
    first, same, other = (
        Performer(features=32, seed=seed).run(*inputs.tensors, inputs.call).out_BHQD
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_more_features_come_closer_to_softmax() -> None:
    inputs = Case(id="closer", queries=64, keys=64).inputs("float64")
    inputs = replace(inputs, q_BHQD=inputs.q_BHQD / 4, k_BGKD=inputs.k_BGKD / 2)
    exact = reference(*inputs.tensors, inputs.call).out_BHQD
    errors = []
    for features in (16, 256, 4096):
        out = Performer(features=features).run(*inputs.tensors, inputs.call).out_BHQD
        errors.append(float((out - exact).norm() / exact.norm()))
    # Sixteen times the features, in the end a quarter of the error.
    assert errors[0] > 2 * errors[1] > 2 * 3 * errors[2]
    assert errors[2] < 0.05


LONG = AttentionCall(
    batch=1,
    query_heads=12,
    kv_heads=12,
    query_length=4096,
    key_length=4096,
    head_dim=64,
    value_dim=64,
    dtype="float32",
    scale=0.125,
    pattern=pattern("full"),
)


def test_costs_against_worked_figures() -> None:
    found = Linear().cost(LONG)
    assert found.flops == 2 * 12 * 2 * 4096 * 64 * 65
    assert found.bytes_read == 3 * 12 * 4096 * 64 * 4
    causal = replace(LONG, pattern=pattern("causal"))
    within = 2 * 12 * 4096 * 128 * (64 + 65)
    assert Linear().cost(causal).flops == found.flops + within
    features = Performer(features=128).cost(LONG)
    assert features.flops == 2 * 12 * 2 * 4096 * 128 * 65 + 2 * 12 * 2 * 4096 * 128 * 64


@BOTH
def test_costs_grow_with_the_length_and_the_workspace_with_the_output(found: FeatureMapped) -> None:
    for key in ("causal", "full"):
        shorter, longer = (
            found.cost(replace(LONG, query_length=n, key_length=n, pattern=pattern(key)))
            for n in (32_768, 65_536)
        )
        assert longer.flops == 2 * shorter.flops
        grown = longer.workspace_bytes - shorter.workspace_bytes
        assert grown == longer.bytes_written - shorter.bytes_written
