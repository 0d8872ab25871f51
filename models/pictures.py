"""A picture as a vision encoder reads it, and which patch of it each place is.

B pictures (one), h and w pixels.
"""

import base64
import io
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attnscope.kernels.errors import ModelUnsupported
from attnscope.models.encoded import Encoded, Source
from attnscope.models.loading import LoadedModel
from attnscope.models.prompting import Batch

if TYPE_CHECKING:
    from PIL import Image

_MOST_HALVINGS = 5
_WHOLE = ("<class>", "<distillation>")
"""What stands for the whole picture before its patches: what a class is read from, and a teacher's word."""


def picture_source(model: LoadedModel, picture: "Image.Image") -> Source:
    """What the encoder of a model that reads pictures is given of one.

    Args:
        model: Reads pictures.
        picture: Of any size; prepared as the model's own processor does.

    Raises:
        ModelUnsupported: The model does not take what its processor makes of a picture.
    """
    pixels_B3hw = pixel_values(model, picture)
    places = _places(model, pixels_B3hw)
    config = model.model.config
    config = config.encoder if model.kind == "encoder-decoder" else config
    before, grid = _laid_out(config, pixels_B3hw, places)
    rows, columns = grid or (0, 0)
    names = (
        [
            *before,
            *(f"r{row + 1} c{column + 1}" for row in range(rows) for column in range(columns)),
        ]
        if grid
        else [f"place {at}" for at in range(places)]
    )
    encoded = Encoded(
        tokens=(tuple(names),),
        token_ids=((),),
        words=(tuple(range(places)),),
        marks=(tuple(range(len(before))),),
        texts=(f"a picture of {picture.width} by {picture.height} pixels",),
        spans=((0, places),),
        grid=grid,
        picture=_as_read(model.image_processor, pixels_B3hw[0]),
    )
    return Source(inputs={"pixel_values": pixels_B3hw}, encoded=encoded)


def picture_alone(source: Source) -> Batch:
    """The batch of a model that reads a picture and nothing else."""
    encoded = source.encoded
    return Batch(
        rows=((),),
        seen=((1,) * source.length,),
        spans=encoded.spans,
        texts=encoded.texts,
        source=source,
    )


def pixel_values(model: LoadedModel, picture: "Image.Image") -> Tensor:
    """A picture as the encoder takes it, `[1, 3, h, w]`, in the model's dtype."""
    prepared = model.image_processor(images=picture.convert("RGB"), return_tensors="pt")
    return prepared["pixel_values"].to(model.device, model.dtype)


def _places(model: LoadedModel, pixels_B3hw: Tensor) -> int:
    """How many places the encoder makes of a picture, which it is run for."""
    live: Any = model.model
    encoder = live.get_encoder() if model.kind == "encoder-decoder" else live
    try:
        with model.lock, torch.no_grad():
            outputs = encoder(pixel_values=pixels_B3hw, output_hidden_states=True)
    except ValueError as error:
        raise ModelUnsupported(
            f"{model.title} does not take a picture as its own image processor prepares it: {error}",
            "Choose a revision whose preprocessor_config.json belongs to its config.json.",
        ) from error
    last = outputs.get("last_hidden_state")
    return (outputs.hidden_states[-1] if last is None else last).shape[1]


def _laid_out(
    config: Any, pixels_B3hw: Tensor, places: int
) -> tuple[list[str], tuple[int, int] | None]:
    """The names of the places before the patches, and rows and columns of these.

    An encoder of several stages halves the patches. Where nothing adds up: no names, and None.
    """
    side = getattr(config, "patch_size", None)
    high, wide = side if isinstance(side, list | tuple) else (side, side)
    if not isinstance(high, int) or not isinstance(wide, int):
        return [], None
    registers = [
        f"<register {at + 1}>" for at in range(getattr(config, "num_register_tokens", None) or 0)
    ]
    rows, columns = pixels_B3hw.shape[2] // high, pixels_B3hw.shape[3] // wide
    for halved in range(_MOST_HALVINGS):
        grid = rows >> halved, columns >> halved
        whole = places - grid[0] * grid[1] - len(registers)
        if all(grid) and 0 <= whole <= len(_WHOLE):
            return [*_WHOLE[:whole], *registers], grid
    return [], None


def _as_read(processor: Any, pixels_3hw: Tensor) -> str:
    """The picture as the model saw it, cropped and scaled: a PNG as a data URL."""
    pixels_hw3 = pixels_3hw.float().cpu().permute(1, 2, 0)
    if getattr(processor, "do_normalize", False):
        deviation, mean = (
            torch.tensor(getattr(processor, f"image_{name}")) for name in ("std", "mean")
        )
        pixels_hw3 = pixels_hw3 * deviation + mean
    if getattr(processor, "do_rescale", False):
        pixels_hw3 = pixels_hw3 / processor.rescale_factor
    from PIL import Image  # a machine that only measures may be without it

    file = io.BytesIO()
    array = pixels_hw3.round().clamp(0, 255).to(torch.uint8).numpy()
    Image.fromarray(array).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
