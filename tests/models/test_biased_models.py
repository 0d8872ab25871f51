"""T5 and its kin under every backend, and their maps: against transformers' eager attention."""

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor

from attnscope.kernels import maps, registry
from attnscope.kernels.errors import UnsupportedCall
from attnscope.models.capture import Capture, capture, kept, plan
from attnscope.models.heads import diagnose_capture
from attnscope.models.loading import LoadedModel
from attnscope.models.positions import layer_of
from attnscope.models.shape import shape_of
from attnscope.models.swapping import LayerCall, swapped
from tests.models.biased import BIASED, BUCKETS, biased, inputs_of, t5_sizes
from tests.models.conftest import tiny_tokenizer

PROMPTS = ("The quick brown fox", "jumps over 3", "a lazy dog, x2")
ON_A_CPU = ("eager", "sdpa_math", "sdpa_flash", "tiled")
REFUSING = [one.name for one in registry.BACKENDS if one.name not in (*ON_A_CPU, "flex")]
TOLERANCE = 1e-5

each_family = pytest.mark.parametrize("family", BIASED)


@functools.cache
def model_of(family: str) -> Any:
    """Makes the tiny model of a family once."""
    config, loader = BIASED[family]
    return biased(loader, config())


@functools.cache
def theirs_of(family: str) -> Any:
    """What transformers' eager attention makes of it."""
    with torch.no_grad():
        return model_of(family)(**inputs_of(family), output_attentions=True, use_cache=False)


def ours_of(family: str, backend: str) -> tuple[Tensor, list[LayerCall]]:
    calls: list[LayerCall] = []
    with torch.no_grad(), swapped(model_of(family), backend, calls.append):
        logits = model_of(family)(**inputs_of(family), use_cache=False).logits
    return logits, calls


@each_family
@pytest.mark.parametrize("backend", ON_A_CPU)
def test_logits_and_every_map_are_those_of_transformers(family: str, backend: str) -> None:
    assert_as_transformers(family, backend)


def assert_as_transformers(family: str, backend: str) -> None:
    theirs = theirs_of(family)
    logits, calls = ours_of(family, backend)
    assert (logits - theirs.logits).abs().max() <= 1e-4 * theirs.logits.abs().max()
    by_layer = zip(theirs.decoder_attentions, theirs.cross_attentions, strict=True)
    expected = [weights for layer in by_layer for weights in layer]
    if family != "longt5":
        expected = [*theirs.encoder_attentions, *expected]
    assert len(calls) == len(expected)
    for call, weights_BHQK in zip(calls, expected, strict=True):
        assert_maps(call, weights_BHQK)


def assert_maps(call: LayerCall, weights_BHQK: Tensor) -> None:
    layer = kept(call)
    seen_BK = layer.visible_keys_BK
    for sequence, weights_HQK in enumerate(weights_BHQK):
        for head, weights_QK in enumerate(weights_HQK):
            bias_HR = layer.distance_bias_HR
            one = maps.Head(
                q_QD=layer.q_BHQD[sequence, head],
                k_KD=layer.k_BGKD[sequence, head],
                lse_Q=layer.lse_BHQ[sequence, head],
                pattern=layer.pattern_of(sequence),
                query_offset=layer.query_offset,
                scale=layer.scale,
                visible_keys_K=None if seen_BK is None else seen_BK[sequence],
                distance_bias_R=None if bias_HR is None else bias_HR[head],
            )
            ours_QK = maps.tile(one, slice(None), slice(None))
            assert (ours_QK - weights_QK).abs().max() <= TOLERANCE, (call.name, sequence, head)


@each_family
def test_only_the_target_s_and_the_source_s_own_attention_has_a_bias(family: str) -> None:
    """Across, T5 adds a tensor of zeros, which is no bias: every backend takes that."""
    _, calls = ours_of(family, "eager")
    across = ("EncDecAttention", "encoder_decoder_attention", "encoder.encoder")
    for call in calls:
        assert (call.distance_bias_HR is None) == any(name in call.name for name in across)


def test_the_bias_is_the_table_of_the_model() -> None:
    """Each column is the weight of the bucket of its distance, by the paper's own formula in a loop."""
    call = ours_of("t5", "eager")[1][0]
    assert call.distance_bias_HR is not None
    table = model_of("t5").encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    keys = call.k_BGKD.shape[2]
    for column, bias_H in enumerate(call.distance_bias_HR.T):
        distance = column - (keys - 1)
        half = BUCKETS["relative_attention_num_buckets"] // 2
        exact = half // 2
        away = abs(distance)
        if away >= exact:
            far = BUCKETS["relative_attention_max_distance"]
            logarithm = torch.tensor(away / exact).log() / torch.tensor(far / exact).log()
            away = min(exact + int(logarithm * (half - exact)), half - 1)
        assert torch.equal(bias_H, table[away + (half if distance > 0 else 0)].detach())


def test_the_shape_of_a_model_without_numbers_leaves_room_for_it() -> None:
    """Across as well: that its tensor there is of zeros, only numbers tell."""
    shape = shape_of(BIASED["t5"][0]())
    assert [layer.has_distance_bias for layer in shape.layers] == [True] * 6


@pytest.mark.parametrize("backend", REFUSING)
def test_other_backends_refuse_on_a_cpu(backend: str) -> None:
    with pytest.raises(UnsupportedCall, match=r"\."):
        ours_of("t5", backend)


@pytest.fixture(scope="module")
def encoder() -> LoadedModel:
    """T5's encoder alone."""
    model = biased(hf.T5EncoderModel, hf.T5Config(**t5_sizes(**BUCKETS)))
    return LoadedModel.of(model, tiny_tokenizer(), has_head=False)


def assert_weights(encoder: LoadedModel, captured: Capture) -> None:
    for sequence, ids in enumerate(captured.token_ids):
        with torch.no_grad():
            theirs = encoder.model(torch.tensor([list(ids)]), output_attentions=True).attentions
        assert len(theirs) == len(captured.layers)
        for layer, weights_1HQK in enumerate(theirs):
            for head, weights_QK in enumerate(weights_1HQK[0]):
                ours_QK = torch.from_numpy(captured.tile(layer, head, sequence=sequence))
                assert (ours_QK - weights_QK).abs().max() <= TOLERANCE


@pytest.mark.parametrize("backend", ON_A_CPU)
@pytest.mark.parametrize("side", ["left", "right"])
def test_an_encoder_is_captured(encoder: LoadedModel, backend: str, side: str) -> None:
    encoder.tokenizer.padding_side = side
    captured = capture(encoder, PROMPTS, backend=backend)
    assert_weights(encoder, captured)


def test_a_plan_counts_the_bias(encoder: LoadedModel) -> None:
    captured = capture(encoder, PROMPTS[0])
    assert captured.nbytes == plan(encoder, [len(captured.token_ids[0])]).total_bytes
    # Two layers, four heads, a float32 for each of 2n − 1 distances.
    without = sum(replace(layer, distance_bias_HR=None).nbytes for layer in captured.layers)
    assert captured.nbytes - without == 2 * 4 * 4 * (2 * len(captured.token_ids[0]) - 1)


def test_a_saved_capture_keeps_its_bias(encoder: LoadedModel, tmp_path: Path) -> None:
    captured = capture(encoder, PROMPTS)
    read = Capture.load(captured.save(tmp_path))
    for ours, theirs in zip(captured.layers, read.layers, strict=True):
        assert ours.distance_bias_HR is not None
        assert theirs.distance_bias_HR is not None
        assert torch.equal(ours.distance_bias_HR, theirs.distance_bias_HR)
    assert_weights(encoder, read)


def test_diagnostics_and_scores_by_distance_have_the_bias(encoder: LoadedModel) -> None:
    captured = capture(encoder, PROMPTS[0])
    ids = torch.tensor([list(captured.token_ids[0])])
    with torch.no_grad():
        weights_HQK = encoder.model(ids, output_attentions=True).attentions[0][0]
    found = diagnose_capture(captured)
    near_H = weights_HQK.diagonal(-1, 1, 2).mean(-1)
    assert found["previous_token"][0] == pytest.approx(near_H.numpy(), abs=TOLERANCE)
    assert layer_of(captured, 0).distance_bias_HR is not None


def wrong_sign(bias_HR: Tensor) -> Tensor:
    return bias_HR.flip(-1)


def off_by_one(bias_HR: Tensor) -> Tensor:
    return bias_HR.roll(1, -1)


def other_heads(bias_HR: Tensor) -> Tensor:
    return bias_HR.roll(1, 0)


@pytest.mark.parametrize("fault", [wrong_sign, off_by_one, other_heads, torch.zeros_like])
def test_a_wrong_bias_fails_the_proof(
    encoder: LoadedModel, fault: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What passes above would not pass by being insensitive to the bias."""
    captured = capture(encoder, PROMPTS)
    for layer in captured.layers:
        assert layer.distance_bias_HR is not None
        layer.distance_bias_HR.copy_(fault(layer.distance_bias_HR.clone()))
    with pytest.raises(AssertionError):
        assert_weights(encoder, captured)
