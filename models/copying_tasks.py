"""Two tasks whose right cross-attention is known: copy a word letter by letter, name squares in a row.

B rows, S source positions, T target positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from attnscope.kernels.errors import PromptRefused

Task = Literal["text", "image"]

PAD_ID, BEGIN_ID, END_ID = 0, 1, 2
FIRST_ID = 3
IGNORED = -100

LETTERS = "abcdefghijklmnopqrstuvwxyz "
LONGEST_WORD = 24

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 39, 40),
    "orange": (255, 150, 30),
    "yellow": (245, 225, 60),
    "green": (44, 150, 60),
    "cyan": (60, 200, 220),
    "blue": (40, 80, 200),
    "purple": (140, 70, 180),
    "black": (20, 20, 20),
}
SQUARES = 8
SIDE = 8
"""Pixels of a square, which is one patch of the image."""
_BLANK = (255, 255, 255)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows of a task, as transformers' models take them.

    Attributes:
        inputs: `input_ids` with `attention_mask`, or `pixel_values`.
        labels_BT: int64, END at the end and IGNORED after it.
    """

    inputs: dict[str, Tensor]
    labels_BT: Tensor


def row_of_squares(colours: Sequence[str]) -> Tensor:
    """The image of some colours from the left, white after them: uint8 `[height, width, 3]`.

    Raises:
        PromptRefused: None, too many, or an unknown one.
    """
    if not 1 <= len(colours) <= SQUARES:
        raise PromptRefused(
            f"The image has room for 1 to {SQUARES} squares, got {len(colours)}.",
            "Choose fewer." if colours else "Choose a colour.",
        )
    unknown = next((one for one in colours if one not in COLOURS), None)
    if unknown is not None:
        raise PromptRefused(
            f"The model does not know the colour {unknown!r}.", f"Choose of {', '.join(COLOURS)}."
        )
    row = [COLOURS[one] for one in colours] + [_BLANK] * (SQUARES - len(colours))
    image_S3 = torch.tensor(row, dtype=torch.uint8)
    return image_S3.repeat_interleave(SIDE, 0).expand(SIDE, -1, -1).contiguous()


def pixels(images_Bhw3: Tensor) -> Tensor:
    """Images as the vision encoder takes them: float32 `[B, 3, height, width]`, −1 to 1."""
    return images_Bhw3.permute(0, 3, 1, 2).float() / 127.5 - 1


def text_batch(rows: int, generator: torch.Generator) -> Batch:
    """Random words of one random length, each to be copied."""
    length = int(torch.randint(1, LONGEST_WORD + 1, (1,), generator=generator))
    words_BS = torch.randint(FIRST_ID, FIRST_ID + len(LETTERS), (rows, length), generator=generator)
    source_BS = torch.cat([words_BS, torch.full((rows, 1), END_ID)], 1)
    inputs = {"input_ids": source_BS, "attention_mask": torch.ones_like(source_BS)}
    return Batch(inputs=inputs, labels_BT=source_BS)


def image_batch(rows: int, generator: torch.Generator) -> Batch:
    """Rows of random colours, each to be named from the left; the rest of a row is white."""
    drawn_BS = torch.randint(len(COLOURS), (rows, SQUARES), generator=generator)
    length_B1 = torch.randint(1, SQUARES + 1, (rows, 1), generator=generator)
    palette = torch.tensor([*COLOURS.values(), _BLANK], dtype=torch.uint8)
    place_S = torch.arange(SQUARES)
    shown_BS = drawn_BS.where(place_S < length_B1, len(COLOURS))
    images_BS3 = palette[shown_BS]
    images_Bhw3 = images_BS3.repeat_interleave(SIDE, 1)[:, None].expand(-1, SIDE, -1, -1)
    labels_BT = torch.full((rows, SQUARES + 1), IGNORED)
    labels_BT[:, :SQUARES] = (drawn_BS + FIRST_ID).where(place_S < length_B1, IGNORED)
    labels_BT.scatter_(1, length_B1, END_ID)
    return Batch(inputs={"pixel_values": pixels(images_Bhw3)}, labels_BT=labels_BT)
