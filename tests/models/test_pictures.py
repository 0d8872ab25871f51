"""Pictures read by a vision encoder, and every kind of attention of such a model against transformers."""

import base64
import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from attnscope.kernels.errors import PromptRefused
from attnscope.models.capture import capture, plan_of
from attnscope.models.copying_tasks import row_of_squares
from attnscope.models.heads import WHATEVER_IS_READ, diagnose_capture
from attnscope.models.loading import LoadedModel, load
from attnscope.models.pairs import read_batch
from attnscope.models.pictures import picture_source

COLOURS = ["red", "green", "blue", "yellow", "black"]


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load("picture-copying", device="cpu")


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return Image.fromarray(row_of_squares(COLOURS).numpy())


@pytest.mark.parametrize("backend", ["eager", "sdpa_flash", "tiled"])
@pytest.mark.parametrize("target", [None, "black blue"])
def test_all_three_are_those_of_transformers(
    model: LoadedModel, picture: Image.Image, backend: str, target: str | None
) -> None:
    found = capture(model, picture=picture, target=target, backend=backend)
    read = COLOURS if target is None else target.split()
    assert found.tokens[0] == ("<begin>", *(f" {colour}" for colour in read))
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 127.5 - 1
    model.model.set_attn_implementation("eager")
    with torch.no_grad():
        live: Any = model.model
        theirs = live(
            pixel_values=pixels,
            decoder_input_ids=torch.tensor([found.token_ids[0]]),
            output_attentions=True,
        )
    expected = {
        "encoder": theirs.encoder_attentions,
        "decoder": theirs.decoder_attentions,
        "cross": theirs.cross_attentions,
    }
    for attention, layers in expected.items():
        alone = found.of(attention)  # pyright: ignore[reportArgumentType]
        assert len(alone.layers) == len(layers) == 1
        for head, weights_QK in enumerate(layers[0][0]):
            np.testing.assert_allclose(alone.tile(0, head), weights_QK, atol=1e-5)


def test_each_colour_is_read_where_it_stands(model: LoadedModel, picture: Image.Image) -> None:
    found = capture(model, picture=picture).of("cross")
    assert found.encoded is not None
    read = found.tile(0, 0).argmax(1)[: len(COLOURS)]
    names = [found.encoded.tokens[0][place] for place in read]
    assert names == [f"r1 c{column + 1}" for column in range(len(COLOURS))]
    assert tuple(diagnose_capture(found)) == WHATEVER_IS_READ


def test_patches_have_no_tokens_to_compare(model: LoadedModel, picture: Image.Image) -> None:
    encoder = capture(model, picture=picture).of("encoder")
    assert tuple(diagnose_capture(encoder)) == WHATEVER_IS_READ
    assert encoder.marks == ((0,),)


def test_the_picture_kept_is_the_one_that_was_read(
    model: LoadedModel, picture: Image.Image
) -> None:
    encoded = picture_source(model, picture).encoded
    assert encoded.grid == (1, 8)
    kind, _, data = encoded.picture.partition(",")
    assert kind == "data:image/png;base64"
    kept = np.array(Image.open(io.BytesIO(base64.b64decode(data))))
    np.testing.assert_array_equal(kept, np.array(picture))


def test_any_size_is_scaled_to_the_model_s(model: LoadedModel, picture: Image.Image) -> None:
    large = picture.resize((640, 80), Image.Resampling.NEAREST)
    assert capture(model, picture=large).texts == (" ".join(COLOURS),)
    batch = read_batch(model, picture=large)
    assert plan_of(model, batch).total_bytes == capture(model, picture=large).nbytes


def test_what_reads_the_other_kind_says_so(model: LoadedModel, picture: Image.Image) -> None:
    with pytest.raises(PromptRefused, match="Picture-copying model reads a picture"):
        capture(model, "red green")
    with pytest.raises(PromptRefused, match="Copying model reads text"):
        capture(load("copying", device="cpu"), picture=picture)
    with pytest.raises(PromptRefused, match="The target is 10 tokens long"):
        capture(model, picture=picture, target=" ".join(COLOURS + COLOURS[:4]))
