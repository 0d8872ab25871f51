"""Errors of outputs against a loop over the heads of an eager pass, and against the definitions in float64."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from torch import Tensor

from attnscope.kernels.approximate.feature_maps import orthogonal_projection
from attnscope.kernels.approximate.linformer import length_projection
from attnscope.kernels.call import AttentionCall
from attnscope.kernels.errors import CaptureMissing, InvalidCall, JobCancelled, ModelUnsupported
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.reference import reference
from attnscope.models.capture import capture
from attnscope.models.captured import Capture
from attnscope.models.loading import LoadedModel, load
from attnscope.models.swapping import LayerCall, swapped
from attnscope.profiling.approximation_sweep import approximation
from attnscope.profiling.output_errors import Way, output_errors, way_errors
from tests.approximations import elu_plus_one, favor, kernel_attention, projected_attention
from tests.inputs import Inputs
from tests.models.conftest import DECODERS, ENCODERS, tiny, tiny_tokenizer

IDS = list(range(5, 45))
PROMPTS = ["abcabcabcabc", "hello hello"]
ALL = [Way(backend=name) for name in ("linear", "performer", "linformer")]


@pytest.fixture(scope="module")
def model(demo: LoadedModel) -> LoadedModel:
    return demo


def captured(family: str, *, values: bool = True) -> Capture:
    """Of a tiny random model."""
    decoder = family in DECODERS
    loader = hf.AutoModelForCausalLM if decoder else hf.AutoModelForMaskedLM
    config = (DECODERS if decoder else ENCODERS)[family]()
    made = LoadedModel.of(tiny(config, loader), tiny_tokenizer("left" if decoder else "right"))
    return capture(made, PROMPTS, values=values)


def test_exact_backends_err_by_rounding_and_a_wide_window_by_nothing(model: LoadedModel) -> None:
    ways = {
        "tiled": Way(backend="tiled"),
        "wide": Way(backend="tiled", pattern=pattern("sliding_window", window=100)),
        "narrow": Way(backend="tiled", pattern=pattern("sliding_window", window=4)),
        "linear": Way(backend="linear"),
    }
    found = output_errors(model, IDS, ways)
    assert found["tiled"].relative < 1e-5
    assert found["wide"].relative < 1e-5
    assert found["narrow"].relative > 0.05
    assert found["linear"].relative > 0.05
    assert all(len(each.by_layer) == 4 and each.tokens == 40 for each in found.values())
    assert not any(each.bidirectional for each in found.values())


def test_a_window_is_judged_as_softmax_over_its_keys_alone(model: LoadedModel) -> None:
    seen: list[tuple[float, float]] = []

    def judge(call: LayerCall) -> None:
        heads = call.q_BHQD.shape[1] // call.k_BGKD.shape[1]
        k, v = (each.double().repeat_interleave(heads, 1) for each in (call.k_BGKD, call.v_BGKD))
        scores = call.q_BHQD.double() @ k.mT * call.scale
        apart = torch.arange(40)[:, None] - torch.arange(40)[None]
        dense, narrow = (
            scores.masked_fill(~shown, -torch.inf).softmax(-1) @ v
            for shown in (apart >= 0, (apart >= 0) & (apart < 4))
        )
        seen.append(((narrow - dense).square().sum().item(), dense.square().sum().item()))

    with torch.no_grad(), swapped(model.model, "eager", recorder=judge):
        model.model(input_ids=torch.tensor([IDS]))
    way = Way(backend="tiled", pattern=pattern("sliding_window", window=4))
    found = output_errors(model, IDS, {"": way})[""]
    errors, sizes = (sum(part) for part in zip(*seen, strict=True))
    assert found.relative == pytest.approx((errors / sizes) ** 0.5, rel=1e-5)
    expected = [(error / size) ** 0.5 for error, size in seen]
    assert found.by_layer == pytest.approx(expected, rel=1e-5)


def test_what_cannot_be_causal_is_judged_without_the_rule_and_says_so(model: LoadedModel) -> None:
    found = output_errors(model, IDS, {"": Way(backend="linformer")})[""]
    assert found.bidirectional
    assert 0 < found.relative < 100


def test_a_single_token_is_no_prompt(model: LoadedModel) -> None:
    with pytest.raises(InvalidCall, match="at least 2 tokens"):
        output_errors(model, [5], {})


def inputs(shown: Capture, layer: int, length: int) -> Inputs:
    view = shown.view(layer)
    assert view.v_GKD is not None
    q, k, v = (x[None, :, :length].double() for x in (view.q_HQD, view.k_GKD, view.v_GKD))
    call = AttentionCall.of(q, k, v, pattern=view.pattern, scale=view.scale)
    return Inputs(call=call, q_BHQD=q, k_BGKD=k, v_BGKD=v, sinks_H=None, visible_keys_BK=None)


def defined(name: str, size: int, asked: Inputs) -> Tensor:
    """The backend's own definition in float64."""
    causal = asked.call.pattern.key == "causal"
    if name == "linear":
        return kernel_attention(asked, elu_plus_one, causal=causal)
    if name == "linformer":
        return projected_attention(asked, length_projection(asked.call.key_length, size, 0))
    rows_FD = orthogonal_projection(size, asked.call.head_dim, 0)
    features = partial(favor, projection_FD=rows_FD, scale=asked.call.scale)
    return kernel_attention(asked, features, causal=causal)


@pytest.mark.parametrize("length", [5, 12])
@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
def test_errors_of_heads_are_those_of_the_definitions(family: str, length: int) -> None:
    shown = captured(family)
    cases = [("linear", 0), ("performer", 4), ("performer", 16), ("linformer", 4)]
    ways = [Way(backend=approximation(name, size)) for name, size in cases]
    found = way_errors(shown, ways, length=length)
    for (name, size), each in zip(cases, found, strict=True):
        assert each.tokens == length
        for at, layer in enumerate(each.layers):
            if name == "linformer" and family != "bert":
                assert "the future" in each.refusals[layer]
                assert np.isnan(each.error_LH[at]).all()
                continue
            asked = inputs(shown, layer, length)
            exact = reference(*asked.tensors, asked.call).out_BHQD[0].flatten(1)
            off = defined(name, size, asked)[0].flatten(1) - exact
            expected = off.norm(dim=1) / exact.norm(dim=1)
            got = torch.from_numpy(each.error_LH[at])
            torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", ["gpt_oss", "gemma2", "mistral"])
def test_what_a_backend_does_not_take_is_refused_by_layer(family: str) -> None:
    for each in way_errors(captured(family), ALL):
        for at, layer in enumerate(each.layers):
            assert np.isnan(each.error_LH[at]).all() == (layer in each.refusals)
        assert each.refusals


@pytest.mark.parametrize("length", [7, 12])
def test_a_bias_by_distance_is_in_both_outputs(length: int) -> None:
    shown = captured("gpt2")
    bias_HR = torch.randn(4, 2 * 12 - 1)
    layers = tuple(replace(each, distance_bias_HR=bias_HR) for each in shown.layers)
    way = Way(backend="tiled", pattern=pattern("sliding_window", window=3))
    (found,) = way_errors(replace(shown, layers=layers), [way], length=length)
    for at, layer in enumerate(found.layers):
        asked = inputs(shown, layer, length)
        call = replace(asked.call, has_distance_bias=True)
        part_HR = bias_HR[:, 12 - length : 12 + length - 1]
        dense, narrow = (
            reference(*asked.tensors, each, distance_bias_HR=part_HR).out_BHQD[0].flatten(1)
            for each in (call, replace(call, pattern=pattern("sliding_window", window=3)))
        )
        expected = (narrow - dense).norm(dim=1) / dense.norm(dim=1)
        got = torch.from_numpy(found.error_LH[at])
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("length", [0, 13])
def test_a_length_that_the_prompt_does_not_have_is_refused(length: int) -> None:
    with pytest.raises(InvalidCall, match=f"has 12 tokens, and {length}"):
        way_errors(captured("gpt2"), ALL, length=length)


def test_without_values_there_is_no_output() -> None:
    with pytest.raises(CaptureMissing, match="no values"):
        way_errors(captured("gpt2", values=False), ALL)


def test_progress_is_told_and_cancels() -> None:
    shown = captured("gpt2")
    told: list[Any] = []
    way_errors(shown, ALL, progress=lambda *step: told.append(step))
    assert told[1] == (0.5, "judging layer 2 of 2")
    assert told[-1] == (1.0, "done")

    def cancel(share: float, step: str) -> None:
        raise JobCancelled(f"{share} {step}")

    with pytest.raises(JobCancelled):
        way_errors(shown, ALL, progress=cancel)


def test_an_encoder_decoder_is_refused() -> None:
    with pytest.raises(ModelUnsupported, match="models of one stack"):
        output_errors(load("copying"), [5, 6, 7], {"linear": Way(backend="linear")})
