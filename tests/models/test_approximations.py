"""Errors of approximate attention on captured tensors, against float64 attention of both kinds."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from attnscope.kernels.approximate.feature_maps import orthogonal_projection
from attnscope.kernels.approximate.linformer import length_projection
from attnscope.kernels.backends.performer import Performer
from attnscope.kernels.call import AttentionCall
from attnscope.kernels.errors import CaptureMissing, InvalidCall, JobCancelled
from attnscope.kernels.reference import reference
from attnscope.models.approximations import FEATURES, approximation_errors, approximations
from attnscope.models.capture import capture
from attnscope.models.captured import Capture
from attnscope.models.loading import LoadedModel
from tests.approximations import elu_plus_one, favor, kernel_attention, projected_attention
from tests.inputs import Inputs

Family = Callable[[str], LoadedModel]
PROMPTS = ["abcabcabcabc", "hello hello"]


def inputs(captured: Capture, layer: int, length: int) -> Inputs:
    view = captured.view(layer)
    assert view.v_GKD is not None
    q, k, v = (x[None, :, :length].double() for x in (view.q_HQD, view.k_GKD, view.v_GKD))
    call = AttentionCall.of(q, k, v, pattern=view.pattern, scale=view.scale)
    return Inputs(call=call, q_BHQD=q, k_BGKD=k, v_BGKD=v, sinks_H=None, visible_keys_BK=None)


def defined(name: str, size: int | None, asked: Inputs) -> Tensor:
    """The backend's own definition in float64."""
    if name == "linear":
        return kernel_attention(asked, elu_plus_one, causal=asked.call.pattern.key == "causal")
    assert size is not None
    if name == "linformer":
        return projected_attention(asked, length_projection(asked.call.key_length, size, 0))
    rows_FD = orthogonal_projection(size, asked.call.head_dim, 0)
    features = partial(favor, projection_FD=rows_FD, scale=asked.call.scale)
    return kernel_attention(asked, features, causal=asked.call.pattern.key == "causal")


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
def test_errors_are_those_of_the_definitions(tiny_family: Family, family: str) -> None:
    captured = capture(tiny_family(family), PROMPTS, values=True)
    found = approximation_errors(captured, approximations((4, 16)), lengths=(5, 12))
    assert [(each.name, each.size, each.length) for each in found] == [
        (name, size, length)
        for name, sizes in (("linear", (None,)), ("performer", (4, 16)), ("linformer", (4, 16)))
        for size in sizes
        for length in (5, 12)
    ]
    for each in found:
        for at, layer in enumerate(each.layers):
            asked = inputs(captured, layer, each.length)
            if layer in each.refusals:
                assert each.name == "linformer"
                assert family != "bert"
                assert "the future" in each.refusals[layer]
                assert np.isnan(each.error_LH[at]).all()
                continue
            exact = reference(*asked.tensors, asked.call).out_BHQD[0].flatten(1)
            off = defined(each.name, each.size, asked)[0].flatten(1) - exact
            expected = off.norm(dim=1) / exact.norm(dim=1)
            torch.testing.assert_close(
                torch.from_numpy(each.error_LH[at]).double(), expected, rtol=1e-3, atol=1e-4
            )


def test_a_performer_errs_less_with_more_features(tiny_family: Family) -> None:
    captured = capture(tiny_family("llama"), PROMPTS, values=True)
    # These heads are so peaky that no number of features estimates them.
    calm = replace(
        captured,
        layers=tuple(
            replace(each, q_BHQD=each.q_BHQD / 4, k_BGKD=each.k_BGKD / 4)
            for each in captured.layers
        ),
    )
    errors = []
    for size in FEATURES:
        draws = [Performer(features=size, seed=seed) for seed in range(12)]
        errors.append(np.mean([each.error_LH for each in approximation_errors(calm, draws)]))
    # With 64 times as many features, an eighth: by far less than a third, whatever was drawn.
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 3


@pytest.mark.parametrize("family", ["gpt_oss", "gemma2", "mistral"])
def test_what_a_backend_does_not_take_is_refused_by_layer(tiny_family: Family, family: str) -> None:
    captured = capture(tiny_family(family), PROMPTS, values=True)
    for each in approximation_errors(captured, approximations()):
        for at, layer in enumerate(each.layers):
            assert np.isnan(each.error_LH[at]).all() == (layer in each.refusals)
        assert each.refusals


def test_lengths_and_sizes_out_of_range_are_refused(tiny_family: Family) -> None:
    captured = capture(tiny_family("gpt2"), PROMPTS, values=True)
    for length in (0, 13):
        with pytest.raises(InvalidCall, match=f"has 12 tokens, and {length}"):
            approximation_errors(captured, approximations(), lengths=(5, length))
    with pytest.raises(InvalidCall, match="features must be at least 1, got 0"):
        approximations((0,))
    with pytest.raises(CaptureMissing, match="no values"):
        approximation_errors(capture(tiny_family("gpt2"), PROMPTS), approximations())


def test_progress_is_told_and_cancels(tiny_family: Family) -> None:
    captured = capture(tiny_family("gpt2"), PROMPTS, values=True)
    told: list[Any] = []
    approximation_errors(captured, approximations(), progress=lambda *step: told.append(step))
    assert told[1] == (0.5, "approximating layer 2 of 2")
    assert told[-1] == (1.0, "done")

    def cancel(share: float, step: str) -> None:
        raise JobCancelled(f"{share} {step}")

    with pytest.raises(JobCancelled):
        approximation_errors(captured, approximations(), progress=cancel)
