"""A picture as a vision encoder reads it, and which patch of it each place is.

B pictures (one), K places, h and w pixels.
"""

import base64
import io
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attnscope.models.encoded import Encoded, Source
from attnscope.models.loading import LoadedModel

if TYPE_CHECKING:
    from PIL import Image

_MOST_HALVINGS = 5
_MOST_EXTRA = 2
"""Places before the patches: a token for the whole picture, and one for a teacher."""


def picture_source(model: LoadedModel, picture: "Image.Image") -> Source:
    """What the encoder of a model that reads pictures is given of one.

    Args:
        model: Reads pictures.
        picture: Of any size; prepared as the model's own processor does.
    """
    pixels_B3hw = pixel_values(model, picture)
    live: Any = model.model
    with model.lock, torch.no_grad():
        places = live.get_encoder()(pixel_values=pixels_B3hw).last_hidden_state.shape[1]
    grid = _grid(live.config.encoder, pixels_B3hw, places)
    rows, columns = grid or (0, 0)
    extra = places - rows * columns if grid else 0
    names = [f"<image{'' if at == 0 else f' {at + 1}'}>" for at in range(extra)]
    names += (
        [f"r{row + 1} c{column + 1}" for row in range(rows) for column in range(columns)]
        if grid
        else [f"place {at}" for at in range(places)]
    )
    encoded = Encoded(
        tokens=(tuple(names),),
        token_ids=((),),
        words=(tuple(range(places)),),
        marks=(tuple(range(extra)),),
        texts=(f"a picture of {picture.width} by {picture.height} pixels",),
        spans=((0, places),),
        grid=grid,
        picture=_as_read(model.image_processor, pixels_B3hw[0]),
    )
    return Source(inputs={"pixel_values": pixels_B3hw}, encoded=encoded)


def pixel_values(model: LoadedModel, picture: "Image.Image") -> Tensor:
    """A picture as the encoder takes it, `[1, 3, h, w]`, in the model's dtype."""
    prepared = model.image_processor(images=picture.convert("RGB"), return_tensors="pt")
    return prepared["pixel_values"].to(model.device, model.dtype)


def _grid(config: Any, pixels_B3hw: Tensor, places: int) -> tuple[int, int] | None:
    """Rows and columns of patches, which an encoder of several stages halves; None where they do not add up."""
    side = getattr(config, "patch_size", None)
    high, wide = side if isinstance(side, list | tuple) else (side, side)
    if not isinstance(high, int) or not isinstance(wide, int):
        return None
    rows, columns = pixels_B3hw.shape[2] // high, pixels_B3hw.shape[3] // wide
    for halved in range(_MOST_HALVINGS):
        grid = rows >> halved, columns >> halved
        if all(grid) and 0 <= places - grid[0] * grid[1] <= _MOST_EXTRA:
            return grid
    return None


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
