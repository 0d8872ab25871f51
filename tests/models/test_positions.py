"""What tells positions apart in real classes, and what is left when it is undone."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from torch import Tensor

from attnscope.kernels.by_distance import by_distance
from attnscope.kernels.errors import InvalidCall, UnsupportedCall
from attnscope.models.capture import capture
from attnscope.models.loading import LoadedModel
from attnscope.models.positions import (
    ROPE_VARIANTS,
    layer_of,
    positional_part,
    positions_of,
    rope_frequencies,
    without_rope,
)
from tests.models.biased import BIASED, biased
from tests.models.conftest import DECODERS, ENCODERS, tiny, tiny_tokenizer

Family = Callable[[str], LoadedModel]
PROMPT = "the quick brown fox, the lazy dog"
LEARNED = {"gpt2": 64, "opt": 66, "bert": 64, "distilbert": 512}
PARTLY = {"phi": (4, 8), "gpt_neox": (2, 8), "deepseek_v3": (8, 16)}


@pytest.mark.parametrize("family", [*DECODERS, *ENCODERS])
def test_a_family_s_positions_are_found_by_running_it(tiny_family: Family, family: str) -> None:
    found = positions_of(tiny_family(family).model)
    assert found.kinds == (("learned",) if family in LEARNED else ("rope",))
    assert len(found.layers) == 2
    if family in LEARNED:
        assert found.table is not None
        assert len(found.table) == LEARNED[family]
        assert f"a table of {LEARNED[family]} vectors" in found.evidence.lower()
    for layer in found.layers:
        assert (layer.rotary is None) == (family in LEARNED)
        if layer.rotary is not None:
            turned, width = PARTLY.get(family, (8, 8))
            assert 2 * len(layer.rotary.frequencies_F) == turned
            assert layer.rotary.start == (width - turned if family == "deepseek_v3" else 0)
            assert layer.rotary.layout == ("interleaved" if family == "llama4_text" else "half")


def test_sinusoids_are_told_from_a_learned_table() -> None:
    config = hf.DistilBertConfig(
        dim=32, n_layers=1, n_heads=4, hidden_dim=64, sinusoidal_pos_embds=True
    )
    model = tiny(config, hf.AutoModelForMaskedLM)
    table: Any = model.get_submodule("distilbert.embeddings.position_embeddings").weight
    from transformers.models.distilbert.modeling_distilbert import create_sinusoidal_embeddings

    create_sinusoidal_embeddings(512, 32, table)
    assert positions_of(model).kinds == ("sinusoidal",)


def test_layers_that_turn_nothing_and_layers_of_other_frequencies_are_told_apart() -> None:
    config = DECODERS["llama4_text"]()
    config.no_rope_layers = [1, 0]
    found = positions_of(tiny(config, hf.AutoModelForCausalLM))
    assert [layer.kind for layer in found.layers] == ["rope", "none"]
    assert "only the mask tells positions apart" in found.evidence
    gemma = positions_of(tiny(DECODERS["gemma3_text"](), hf.AutoModelForCausalLM))
    local, whole = (layer.rotary for layer in gemma.layers)
    assert local is not None
    assert whole is not None
    assert float(local.frequencies_F[-1]) == pytest.approx(10_000**-0.75)
    assert float(whole.frequencies_F[-1]) == pytest.approx(1_000_000**-0.75)


ALIBI = {
    "bloom": (hf.BloomConfig(hidden_size=32, n_layer=2, n_head=4), "build_alibi_tensor"),
    "mpt": (hf.MptConfig(d_model=32, n_layers=2, n_heads=4), "build_mpt_alibi_tensor"),
    "falcon": (
        hf.FalconConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, alibi=True),
        "alibi in its config",
    ),
}


@pytest.mark.parametrize("family", ALIBI)
def test_alibi_is_found_in_the_class_and_its_switch(family: str) -> None:
    config, words = ALIBI[family]
    found = positions_of(tiny(config, hf.AutoModelForCausalLM))
    assert found.kinds == ("alibi",)
    assert len(found.layers) == 2
    assert words in found.evidence


def test_a_bias_by_distance_is_found_in_the_calls() -> None:
    """T5: of the source's and of the target's own attention, not across."""
    config, loader = BIASED["t5"]
    found = positions_of(biased(loader, config()))
    assert [layer.kind for layer in found.layers] == ["bias"] * 3 + ["none", "bias", "none"]
    assert "4 of 6 layers add a bias" in found.evidence
    encoder = positions_of(biased(hf.T5EncoderModel, config()))
    assert encoder.kinds == ("bias",)


def test_what_cannot_be_seen_is_refused() -> None:
    config = hf.FalconConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, alibi=False
    )
    with pytest.raises(UnsupportedCall, match="out of reach"):
        positions_of(tiny(config, hf.AutoModelForCausalLM))


@pytest.mark.parametrize("rope_type", ["default", "linear", "yarn", "llama3", "dynamic"])
def test_undone_a_key_is_what_its_projection_gave(rope_type: str) -> None:
    config = DECODERS["llama"]()
    config.rope_parameters = {"rope_type": rope_type, "rope_theta": 500.0} | ROPE_VARIANTS[
        rope_type
    ]
    if rope_type in ("yarn", "llama3"):
        config.rope_parameters["original_max_position_embeddings"] = 16
    model = LoadedModel.of(tiny(config, hf.AutoModelForCausalLM), tiny_tokenizer("left"))
    given: list[Tensor] = []
    projection = model.model.get_submodule("model.layers.1.self_attn.k_proj")
    hook = projection.register_forward_hook(lambda _m, _i, out: given.append(out.detach()))
    captured = capture(model, PROMPT)
    hook.remove()
    found = positions_of(model.model)
    assert found.rope_type == rope_type
    rotary = found.layers[1].rotary
    assert rotary is not None
    still = without_rope(captured, 1, rotary)
    expected_GKD = given[-1][0].unflatten(-1, (2, 8)).transpose(0, 1)
    # yarn also scales the keys by one factor.
    factor = still.k_GKD.norm() / expected_GKD.norm()
    torch.testing.assert_close(still.k_GKD, expected_GKD * factor, rtol=1e-4, atol=1e-4)
    assert rotary.longest == (64 if rope_type == "dynamic" else None)
    assert float(factor) == pytest.approx(1.0 if rope_type != "yarn" else 0.1 * math.log(4) + 1)


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "llama4_text"])
def test_turned_again_the_scores_are_those_that_were_captured(
    tiny_family: Family, family: str
) -> None:
    model = tiny_family(family)
    captured = capture(model, PROMPT)
    rotary = positions_of(model.model).layers[1].rotary
    assert rotary is not None
    still, seen = without_rope(captured, 1, rotary), layer_of(captured, 1)
    at = torch.arange(still.query_length)
    for undone, held in ((still.q_HQD, seen.q_HQD), (still.k_GKD, seen.k_GKD)):
        torch.testing.assert_close(rotary.turned(undone, at), held, rtol=1e-4, atol=1e-4)


def test_one_token_said_again_and_again_scores_by_its_distance_alone(tiny_family: Family) -> None:
    model = tiny_family("llama")
    captured = capture(model, "a" * 20)
    rotary = positions_of(model.model).layers[0].rotary
    assert rotary is not None
    seen = by_distance(layer_of(captured, 0))
    part = positional_part(captured, 0, rotary, seen.distance_M)
    # All its queries are one, and all its keys: the positional part is all there is.
    torch.testing.assert_close(seen.mean_HM, part, rtol=1e-3, atol=1e-3)
    for head in range(4):
        scores = captured.tile(0, head, reading="score")
        means = [np.diagonal(scores, -distance).mean() for distance in range(20)]
        np.testing.assert_allclose(seen.mean_HM[head], means, atol=1e-4)
    flat = by_distance(without_rope(captured, 0, rotary)).mean_HM
    torch.testing.assert_close(flat, flat[:, :1].expand_as(flat), rtol=1e-3, atol=1e-3)


def test_frequencies_of_every_scaling_are_those_that_a_model_uses() -> None:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    assert set(ROPE_VARIANTS) == {"default", *ROPE_INIT_FUNCTIONS}
    plain = [10_000 ** (-2 * i / 64) for i in range(32)]
    found = {name: rope_frequencies(name, head_dim=64)[0].tolist() for name in ROPE_VARIANTS}
    assert found["default"] == pytest.approx(plain)
    assert found["linear"] == pytest.approx([one / 4 for one in plain])
    # Dynamic (bloc97): the base grows so that the slowest plane covers the longer length.
    base = 10_000 * (4.0 * 16_384 / 4_096 - 3.0) ** (64 / 62)
    assert found["dynamic"] == pytest.approx([base ** (-2 * i / 64) for i in range(32)])
    assert found["longrope"] == pytest.approx(
        [one / (1 + 3 * i / 31) for i, one in enumerate(plain)]
    )
    # Llama 3.1: long waves are 8 times as long, short ones as they were, those between in between.
    for mine, theirs in zip(found["llama3"], plain, strict=True):
        wave = 2 * math.pi / theirs
        smooth = min(max((4_096 / wave - 1) / (4 - 1), 0), 1)
        assert mine == pytest.approx((1 - smooth) * theirs / 8 + smooth * theirs, rel=1e-5)
    assert found["yarn"][0] == pytest.approx(plain[0])
    assert found["yarn"][-1] == pytest.approx(plain[-1] / 4)
    assert found["proportional"][16:] == [0.0] * 16


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"rope_type": "ntk"}, "No scaling 'ntk'"),
        ({"rope_type": "linear", "head_dim": 7}, "even head_dim"),
        ({"rope_type": "linear", "factor": "four"}, "takes no such parameters for linear"),
        ({"rope_type": "linear", "factor": 0.0}, "frequencies that are not finite"),
    ],
)
def test_scalings_that_have_no_meaning_are_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidCall, match=words):
        rope_frequencies(**wrong)
