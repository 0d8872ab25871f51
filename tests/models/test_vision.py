"""Vision transformers read alone: every head against transformers, places by name, and what cannot be opened."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from attnscope.kernels.errors import AttnscopeError, ModelUnsupported, PromptRefused
from attnscope.kernels.patterns.local import Local
from attnscope.models.capture import Capture, capture, plan_of
from attnscope.models.heads import WHATEVER_IS_READ, diagnose_capture
from attnscope.models.loading import LoadedModel, load
from attnscope.models.pairs import read_batch
from attnscope.models.position_effect import position_effect
from attnscope.models.shape import picture_layers, shape_of
from attnscope.models.sparse_run import run_sparse
from tests.models.vision import BEFORE, CLASSES, CLASSIFIERS, save_tiny, striped

PATCHES = tuple(f"r{row} c{column}" for row in range(1, 5) for column in range(1, 5))


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(str(save_tiny("vit", tmp_path_factory.mktemp("vit"))), device="cpu")


@pytest.mark.parametrize("model_type", BEFORE)
def test_every_head_is_that_of_transformers(model_type: str, tmp_path: Path) -> None:
    model = load(str(save_tiny(model_type, tmp_path)), device="cpu")
    found = capture(model, picture=striped(), backend="tiled")
    assert (found.kind, found.attentions, found.grid) == ("encoder", ("self",), (4, 4))
    assert found.tokens == ((*BEFORE[model_type], *PATCHES),)
    assert found.marks == (tuple(range(len(BEFORE[model_type]))),)

    theirs: Any = hf.AutoModel.from_pretrained(tmp_path, attn_implementation="eager").eval()
    theirs = getattr(theirs, "vision_model", theirs)
    prepared = hf.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    with torch.no_grad():
        pixels = prepared(images=striped(), return_tensors="pt")["pixel_values"]
        weights = theirs(pixel_values=pixels, output_attentions=True).attentions
    assert len(found.layers) == len(weights) == 2
    for layer, weights_BHQK in enumerate(weights):
        for head, weights_QK in enumerate(weights_BHQK[0]):
            np.testing.assert_allclose(found.tile(layer, head), weights_QK, atol=1e-5)


@pytest.mark.parametrize("model_type", CLASSIFIERS)
def test_a_classifier_says_its_likeliest_classes(model_type: str, tmp_path: Path) -> None:
    model = load(str(save_tiny(model_type, tmp_path)), device="cpu")
    said = (capture(model, picture=striped()).next_tokens or ((),))[0]
    theirs = hf.AutoModelForImageClassification.from_pretrained(tmp_path)
    prepared = hf.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    with torch.no_grad():
        logits = theirs(**prepared(images=striped(), return_tensors="pt")).logits[0]
    shares = dict(zip(CLASSES, logits.softmax(-1).tolist(), strict=True))
    assert [name for name, _ in said] == sorted(shares, key=lambda name: -shares[name])
    assert dict(said) == pytest.approx(shares, rel=1e-4)


def test_a_capture_is_planned_kept_and_diagnosed(vit: LoadedModel, tmp_path: Path) -> None:
    found = capture(vit, picture=striped(), values=True)
    planned = plan_of(vit, read_batch(vit, picture=striped()), values=True)
    assert planned.total_bytes == found.nbytes
    kept = Capture.load(found.save(tmp_path))
    assert (kept.tokens, kept.grid, kept.picture) == (found.tokens, found.grid, found.picture)
    np.testing.assert_array_equal(kept.tile(1, 2), found.tile(1, 2))
    assert tuple(diagnose_capture(found)) == WHATEVER_IS_READ


def test_what_needs_a_text_says_so(vit: LoadedModel) -> None:
    for asked in (
        lambda: run_sparse(vit, "abc", patterns=Local(window=3)),
        lambda: position_effect(vit, "abc"),
        lambda: vit.tokenizer,
        lambda: shape_of(vit.source),
    ):
        with pytest.raises(ModelUnsupported, match="reads a picture"):
            asked()
    with pytest.raises(PromptRefused, match="reads a picture"):
        capture(vit, "abc")
    with pytest.raises(PromptRefused, match="takes no target"):
        capture(vit, picture=striped(), target="abc")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"model_type": "swin"}, "windows"),
        ({"model_type": "convnext"}, "convolutions"),
        ({"model_type": "beit", "use_relative_position_bias": True}, "bias of the places"),
        ({"model_type": "llava", "vision_config": {}}, "not a vision transformer"),
        ({"model_type": "vit_mae"}, "part of the patches"),
    ],
)
def test_other_readers_of_pictures_are_refused_in_words(
    config: dict[str, object], reason: str, tmp_path: Path
) -> None:
    save_tiny("vit", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelUnsupported, match=reason):
        load(str(tmp_path))


@pytest.mark.parametrize(
    ("missing", "image_size", "reason"),
    [("preprocessor_config.json", 32, "how its pictures"), ("", 64, "own image processor")],
)
def test_a_processor_that_is_missing_or_of_another_model_is_told(
    missing: str, image_size: int, reason: str, tmp_path: Path
) -> None:
    save_tiny("vit", tmp_path, image_size=image_size)
    if missing:
        (tmp_path / missing).unlink()
    with pytest.raises(AttnscopeError, match=reason):
        capture(load(str(tmp_path), device="cpu"), picture=striped())


def test_layers_are_told_from_the_configuration(vit: LoadedModel) -> None:
    calls = capture(vit, picture=striped()).layers
    told = picture_layers(vit.model.config)
    assert [(one.query_heads, one.head_dim, one.scale) for one in told] == [
        (call.q_BHQD.shape[1], call.q_BHQD.shape[3], pytest.approx(call.scale)) for call in calls
    ]
    staged = hf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        hf.SwinConfig(), hf.GPT2Config()
    )
    with pytest.raises(ModelUnsupported, match="works in stages"):
        picture_layers(staged)
