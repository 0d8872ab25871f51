"""Text as rows of tokens of one length, for training and for measuring a loss, in any model's tokens.

T tokens of a row.
"""

import torch
from torch import Tensor

from attnscope.kernels.errors import InvalidCall, PromptRefused
from attnscope.models.demo_text.documents import document_stream
from attnscope.models.loading import LoadedModel


def generated_rows(
    model: LoadedModel, *, rows: int, length: int, seed: int = 0, held_out: bool = False
) -> Tensor:
    """Rows of the text that the demo model was trained on, in any model's tokens.

    Documents of our own generator, packed as in the demo's training: each closed by the end token.

    Args:
        model: Tokenises.
        rows: How many.
        length: T, tokens of a row.
        seed: Of the documents.
        held_out: Documents that no training of any seed draws.

    Returns:
        int64 `[rows, T]`.

    Raises:
        InvalidCall: No rows, or rows too short to predict a token.
    """
    if rows < 1 or length < 2:
        raise InvalidCall(f"Rows must be 1 or more of 2 tokens or more, got {rows} of {length}.")
    tokenizer, documents = model.tokenizer, document_stream(seed, held_out=held_out)
    first, last = (
        [one] if isinstance(one, int) else []
        for one in (tokenizer.bos_token_id, tokenizer.eos_token_id)
    )
    packed = []
    for _ in range(rows):
        row = list(first)
        while len(row) < length:
            ids = tokenizer(next(documents), add_special_tokens=False, verbose=False)["input_ids"]
            row += [*ids, *last]  # pyright: ignore[reportGeneralTypeIssues]
        packed.append(row[:length])
    return torch.tensor(packed)


def rows_of_text(model: LoadedModel, text: str, *, length: int) -> Tensor:
    """A text as rows of tokens to train on or to measure with; the rest of the last row is left out.

    Args:
        model: Tokenises.
        text: Any text.
        length: T, tokens of a row.

    Returns:
        int64 `[rows, T]`.

    Raises:
        PromptRefused: The text does not fill one row.
    """
    if length < 2:
        raise InvalidCall(f"A row needs at least 2 tokens to predict one, got {length}.")
    ids = model.tokenizer(text, verbose=False)["input_ids"]
    rows = len(ids) // length  # pyright: ignore[reportArgumentType]
    if rows == 0:
        raise PromptRefused(
            f"The text has {len(ids)} tokens, and one row takes {length}.",  # pyright: ignore[reportArgumentType]
            "Give a longer text, or shorter rows.",
        )
    return torch.tensor(ids[: rows * length]).view(rows, length)
