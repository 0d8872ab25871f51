"""One layer of a capture: padding, holes, patterns by sequence, values."""

from collections.abc import Callable

import pytest
import torch

from attnscope.kernels.maps import log_sum_exp
from attnscope.kernels.patterns.causal import Causal
from attnscope.models.capture import capture
from attnscope.models.loading import LoadedModel

Family = Callable[[str], LoadedModel]
PROMPT = "abcabcabc"


def test_a_pattern_by_sequence_follows_the_padding(tiny_family: Family) -> None:
    captured = capture(tiny_family("llama4_text"), ["abcdefgh", "abcde"])
    assert len(captured.layers[0].patterns) == 2
    alone = capture(tiny_family("llama4_text"), "abcde")
    assert captured.tile(0, 0, sequence=1) == pytest.approx(alone.tile(0, 0), abs=1e-5)


def test_values_norms_are_kept(tiny_family: Family) -> None:
    captured = capture(tiny_family("llama"), PROMPT)
    head = captured.head(1, 3)
    assert head.value_norm_K is not None
    weighted = captured.tile(1, 3, reading="value_weighted")
    expected = captured.tile(1, 3) * head.value_norm_K.numpy()
    assert weighted == pytest.approx(expected, rel=1e-5)


def test_holes_in_an_attention_mask_stay_hidden(tiny_family: Family) -> None:
    model = tiny_family("llama")
    ids = model.tokenizer("abcdefgh")["input_ids"]
    mask = [0, 1, 1, 0, 1, 1, 1, 0]
    captured = capture(model, input_ids=[ids], attention_mask=[mask])
    assert captured.spans == ((1, 7),)
    weights = captured.tile(0, 0)
    assert weights.shape == (6, 6)
    assert (weights[:, 2] == 0).all()
    assert weights.sum(-1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("family", ["gemma2", "gpt_oss", "llama4_text", "bert"])
def test_a_streamed_log_sum_exp_is_the_backends(tiny_family: Family, family: str) -> None:
    prompts = ["abcdefgh", "abcde"]
    given = capture(tiny_family(family), prompts, backend="tiled")
    for layer in given.layers:
        streamed = type(layer.log_sum_exp)(None).of(layer)
        assert streamed.shape == layer.lse_BHQ.shape
        for sequence, (start, end) in enumerate(given.spans):
            ours = streamed[sequence, :, start:end]
            assert torch.allclose(ours, layer.lse_BHQ[sequence, :, start:end], atol=1e-5)


def test_a_log_sum_exp_is_streamed_once(tiny_family: Family) -> None:
    layer = capture(tiny_family("llama"), PROMPT).layers[0]
    holder = type(layer.log_sum_exp)(None)
    first = holder.of(layer)
    assert holder.of(layer) is first
    expected = log_sum_exp(
        layer.q_BHQD, layer.k_BGKD, pattern=Causal(), query_offset=0, scale=layer.scale
    )
    assert torch.equal(first, expected)
