"""Cross-attention of real classes under our backends, against transformers' own `cross_attentions`."""

from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from torch import Tensor
from transformers import PreTrainedModel

from attnscope.kernels.errors import (
    CaptureMissing,
    CaptureTooLarge,
    InvalidCall,
    ModelUnsupported,
    UnsupportedCall,
)
from attnscope.models.cross_attention import CrossCapture, cross_capture
from tests.models.biased import BIASED, biased
from tests.models.conftest import DECODERS, VOCABULARY, tiny
from tests.models.greedy import ENCODER_DECODERS

BACKENDS = ["eager", "sdpa_math", "sdpa_flash", "tiled"]


def vision() -> PreTrainedModel:
    encoder = hf.ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=12,
        patch_size=4,
        initializer_range=0.3,
    )
    decoder = hf.GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=48,
        n_layer=2,
        n_head=4,
        n_positions=32,
        add_cross_attention=True,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    config = hf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    return hf.VisionEncoderDecoderModel(config=config).eval()


def bart() -> PreTrainedModel:
    config, loader = ENCODER_DECODERS["bart"]
    made = config()
    made.decoder_layers = 2
    return tiny(made, loader)


def inputs_of(model: PreTrainedModel, queries: int = 5) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    target = torch.randint(3, VOCABULARY, (1, queries), generator=generator)
    if model.config.model_type in ("bart", "t5"):
        source = torch.randint(3, VOCABULARY, (1, 9), generator=generator)
        return {"input_ids": source, "decoder_input_ids": target}
    pixels = torch.randn(1, 3, 12, 12, generator=generator)
    return {"pixel_values": pixels, "decoder_input_ids": target}


def captured(model: PreTrainedModel, inputs: dict[str, Tensor], **asked: Any) -> CrossCapture:
    keys = inputs["input_ids"].shape[1] if "input_ids" in inputs else 10
    names: dict[str, Any] = {
        "source": [f"s{at}" for at in range(keys)],
        "target": [f"t{at}" for at in range(inputs["decoder_input_ids"].shape[1])],
    }
    return cross_capture(model, inputs, **(names | asked))


@pytest.fixture(scope="module")
def models() -> dict[str, PreTrainedModel]:
    config, loader = BIASED["t5"]
    return {"bart": bart(), "vision": vision(), "t5": biased(loader, config())}


@pytest.mark.parametrize("queries", [1, 5, 14])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["bart", "vision", "t5"])
def test_the_maps_are_those_of_transformers(
    models: dict[str, PreTrainedModel], name: str, backend: str, queries: int
) -> None:
    model = models[name]
    inputs = inputs_of(model, queries)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        theirs = model(**inputs, output_attentions=True, use_cache=False)
    found = captured(model, inputs, backend=backend)
    assert len(found.layers) == len(theirs.cross_attentions) == 2
    for layer, weights_BHQK in enumerate(theirs.cross_attentions):
        assert weights_BHQK.shape[2] == queries
        for head, weights_QK in enumerate(weights_BHQK[0]):
            np.testing.assert_allclose(found.tile(layer, head), weights_QK, atol=1e-5)
    assert found.predicted == tuple(theirs.logits[0].argmax(-1).tolist())
    assert found.backend == backend


def test_the_target_s_own_attention_is_left_out_even_where_it_is_as_long(
    models: dict[str, PreTrainedModel],
) -> None:
    found = captured(models["bart"], inputs_of(models["bart"], 9))
    assert [layer.name for layer in found.layers] == [
        f"model.decoder.layers.{at}.encoder_attn" for at in (0, 1)
    ]
    assert [layer.layer for layer in found.layers] == [0, 1]
    # Nothing is hidden: the first query reads the last key.
    assert (found.tile(0, 0) > 0).all()


def test_padding_of_the_source_is_not_read(models: dict[str, PreTrainedModel]) -> None:
    inputs = inputs_of(models["bart"])
    seen = torch.ones_like(inputs["input_ids"])
    seen[:, 6:] = 0
    found = captured(models["bart"], inputs | {"attention_mask": seen})
    assert not found.tile(0, 1)[:, 6:].any()
    np.testing.assert_allclose(found.tile(0, 1).sum(1), 1, atol=1e-5)


def test_the_mass_on_the_right_keys_is_read_off_the_map(models: dict[str, PreTrainedModel]) -> None:
    found = captured(models["bart"], inputs_of(models["bart"]))
    mass = found.mass_on(1, 2, [4, 0, 8])
    tile = found.tile(1, 2)
    assert mass.tolist() == [tile[0, 4], tile[1, 0], tile[2, 8]]
    for wrong in ([], [9], [0] * 6, [-1]):
        with pytest.raises(InvalidCall, match="Right keys must be 1 to 5, each of 0 to 8"):
            found.mass_on(0, 0, wrong)
    with pytest.raises(CaptureMissing, match="no cross-attention layer 2"):
        found.tile(2, 0)
    with pytest.raises(InvalidCall, match="no head 4"):
        found.tile(0, 4)


def test_bytes_are_those_of_the_tensors_and_the_budget_is_kept(
    models: dict[str, PreTrainedModel],
) -> None:
    inputs = inputs_of(models["bart"])
    found = captured(models["bart"], inputs)
    # q of 5 and k of 9 tokens, 4 heads of 8; log-sum-exp of each query, norm of each value.
    assert found.nbytes == 2 * 4 * (4 * 5 * 8 + 4 * 9 * 8 + 4 * 5 + 4 * 9)
    assert captured(models["bart"], inputs, byte_budget=found.nbytes).nbytes == found.nbytes
    with pytest.raises(CaptureTooLarge, match="more than the budget"):
        captured(models["bart"], inputs, byte_budget=found.nbytes - 1)


def test_what_has_no_map_is_refused(models: dict[str, PreTrainedModel]) -> None:
    inputs = inputs_of(models["bart"])
    with pytest.raises(InvalidCall, match="9 keys and 5 queries; 2 and 5 were named"):
        captured(models["bart"], inputs, source=["a", "b"])
    with pytest.raises(UnsupportedCall, match="it approximates"):
        captured(models["bart"], inputs, backend="linear")
    llama = tiny(DECODERS["llama"](), hf.AutoModelForCausalLM)
    with pytest.raises(ModelUnsupported, match="llama has no cross-attention"):
        cross_capture(llama, {"input_ids": torch.ones(1, 4).long()}, source=["a"], target=["b"])
    assert not any(module._forward_pre_hooks for module in models["bart"].modules())
