"""What was read, by place: tokens of a text, or patches of a picture."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """The sequences of a batch, as a capture keeps them; fields are those of `Capture`.

    Attributes:
        tokens: The text of each token, by sequence, or the name of each patch.
        token_ids: Their ids; of patches none.
        words: The word each token belongs to.
        marks: Positions of the tokenizer's own marks, and of what stands for a whole picture.
        texts: The prompts; of a picture its size in words.
        spans: Where each sequence lies in the padded batch, `[start, end)`.
        grid: Rows and columns of patches, which are the last of the places; None of a text, or where
            places are no patches.
        picture: As the model saw it, a PNG as a data URL; empty of a text.
    """

    tokens: tuple[tuple[str, ...], ...]
    token_ids: tuple[tuple[int, ...], ...]
    words: tuple[tuple[int, ...], ...]
    marks: tuple[tuple[int, ...], ...]
    texts: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    grid: tuple[int, int] | None = None
    picture: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What an encoder is given: that of an encoder-decoder, or one that reads a picture alone.

    Attributes:
        inputs: Arguments of the model's forward: `input_ids` and `attention_mask`, or `pixel_values`.
        encoded: What each place of it is.
    """

    inputs: Mapping[str, Tensor]
    encoded: Encoded

    @property
    def length(self) -> int:
        """Places of the longest source, that is K of a cross-attention."""
        return max(end for _, end in self.encoded.spans)
