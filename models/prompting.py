"""From prompts to the batch of token ids a model reads, or a refusal that says what to change.

B batch, n tokens of the padded batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attnscope.kernels.errors import InvalidCall, ModelUnsupported, PromptRefused
from attnscope.models.encoded import Encoded, Source
from attnscope.models.loading import LoadedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Prompts as the model reads them.

    Attributes:
        rows: Token ids with padding, one row a sequence, all of one length; of a picture none.
        seen: 1 where a token or a patch counts, 0 where one is padding.
        spans: `[start, end)` of each sequence within its row.
        texts: The prompts.
        source: What the encoder of an encoder-decoder reads, the prompts being its targets; or the picture
            of a model that reads nothing else.
    """

    rows: tuple[tuple[int, ...], ...]
    seen: tuple[tuple[int, ...], ...]
    spans: tuple[tuple[int, int], ...]
    texts: tuple[str, ...]
    source: Source | None = None

    @property
    def size(self) -> int:
        """B."""
        return len(self.rows)

    @property
    def length(self) -> int:
        """Tokens of the padded batch, n, or places of a picture."""
        return len(self.seen[0])

    @property
    def ids(self) -> tuple[tuple[int, ...], ...]:
        """The ids of each sequence, without padding at its ends."""
        return tuple(
            row[start:end] for row, (start, end) in zip(self.rows, self.spans, strict=True)
        )

    @property
    def is_picture(self) -> bool:
        """Whether it is a picture that is read alone."""
        return self.source is not None and not any(self.rows)

    @property
    def starts_late(self) -> bool:
        """Whether some sequence is padded on the left, so that positions must be told."""
        return any(start > 0 for start, _ in self.spans)

    def tensors(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """int64 ids and mask, `[B, n]`."""
        return torch.tensor(self.rows, device=device), torch.tensor(self.seen, device=device)


def batch_of(
    model: LoadedModel,
    text: str | Sequence[str] | None,
    input_ids: Tensor | Sequence | None,
    attention_mask: Tensor | Sequence | None,
) -> Batch:
    """The batch of prompts given as text or as ids.

    Args:
        model: Tokenises, and sets the limit and the side of the padding.
        text: One prompt or several, or None.
        input_ids: `[n]`, `[B, n]` or ragged lists, or None.
        attention_mask: Like `input_ids`, or None.

    Raises:
        InvalidCall: Neither or both are given, or the mask does not fit.
        PromptRefused: A prompt is empty, too long, or has unknown ids.
    """
    if (text is None) == (input_ids is None):
        raise InvalidCall("Give either text or input_ids.")
    if text is not None:
        texts = (text,) if isinstance(text, str) else tuple(text)
        check_texts(texts)
        sequences = [list(map(int, ids)) for ids in model.tokenizer(list(texts))["input_ids"]]  # pyright: ignore[reportGeneralTypeIssues, reportArgumentType]
    else:
        texts, sequences = (), _rows(input_ids)
    seen = None if attention_mask is None else _rows(attention_mask)
    if seen is not None and [len(row) for row in seen] != [len(row) for row in sequences]:
        raise InvalidCall("attention_mask must have the shape of input_ids.")
    return padded(model, sequences, texts, seen=seen)


def padded(
    model: LoadedModel,
    sequences: list[list[int]],
    texts: tuple[str, ...],
    *,
    seen: list[list[int]] | None = None,
    source: Source | None = None,
) -> Batch:
    """Sequences of any lengths as one batch.

    Args:
        model: Sets the limits and the side of the padding.
        sequences: Token ids.
        texts: What they say; their joined tokens when empty.
        seen: Like `sequences`, 0 where a token is padding; nothing is when None.
        source: See `Batch`.

    Raises:
        PromptRefused: A sequence is empty, too long, has unknown ids, or is nothing but padding.
    """
    for number, ids in enumerate(sequences):
        _check_ids(model, ids, number if len(sequences) > 1 else None, is_target=source is not None)
    texts = texts or tuple("".join(model.tokens(ids)) for ids in sequences)
    length = max(map(len, sequences))
    left = model.kind == "decoder" and model.tokenizer.padding_side == "left"
    # Any id serves: the mask hides it.
    filler = next(
        (
            one
            for one in (model.tokenizer.pad_token_id, model.tokenizer.eos_token_id)
            if isinstance(one, int)
        ),
        0,
    )
    rows, masks, spans = [], [], []
    for number, ids in enumerate(sequences):
        missing = length - len(ids)
        kept = [1] * len(ids) if seen is None else [int(bool(one)) for one in seen[number]]
        if not any(kept):
            raise PromptRefused("A prompt's attention_mask hides every token of it.")
        before, after = (missing, 0) if left else (0, missing)
        row = [0] * before + kept + [0] * after
        rows.append((*[filler] * before, *ids, *[filler] * after))
        masks.append(tuple(row))
        spans.append((row.index(1), length - row[::-1].index(1)))
    return Batch(
        rows=tuple(rows), seen=tuple(masks), spans=tuple(spans), texts=texts, source=source
    )


def read_by_place(model: LoadedModel, batch: Batch) -> Encoded:
    """What the places of a batch are: its tokens, or the patches of its picture."""
    if batch.source is not None and batch.is_picture:
        return batch.source.encoded
    ids = batch.ids
    return Encoded(
        tokens=tuple(model.tokens(one) for one in ids),
        token_ids=ids,
        words=tuple(model.words(one) for one in ids),
        marks=tuple(model.marks(one) for one in ids),
        texts=batch.texts,
        spans=batch.spans,
    )


def chat_ids(model: LoadedModel, texts: Sequence[str]) -> list[list[int]]:
    """Each text as what a user says, in the tokenizer's chat template, up to where the model answers.

    Raises:
        PromptRefused: The tokenizer has no template.
    """
    if not model.tokenizer.chat_template:
        raise PromptRefused(f"{model.title} has no chat template.", "Turn the template off.")
    made: Any = [
        model.tokenizer.apply_chat_template(
            [{"role": "user", "content": text}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
        )
        for text in texts
    ]
    return made


def check_one_text(model: LoadedModel, what: str) -> None:
    """Raises ModelUnsupported of an encoder-decoder, and of a model that reads pictures.

    Args:
        model: Any.
        what: Is done to models that read one text alone, such as "patterns are tried on".
    """
    if model.kind != "encoder-decoder" and model.reads_pictures:
        raise ModelUnsupported(
            f"{model.title} reads a picture: {what} models that read a text.",
            "Choose a decoder or an encoder of text.",
        )
    if model.kind == "encoder-decoder":
        raise ModelUnsupported(
            f"{model.title} is an encoder-decoder: {what} models of one stack.",
            "Choose a decoder or an encoder.",
        )


def check_texts(texts: Sequence[str]) -> None:
    """Raises PromptRefused where there is no text, or one says nothing."""
    if not texts:
        raise PromptRefused("There is no prompt.", "Write one.")
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            raise PromptRefused(f"Prompt {number} is a {type(text).__name__}, not text.")
        if not text.strip():
            which = "The prompt" if len(texts) == 1 else f"Prompt {number}"
            raise PromptRefused(f"{which} is empty.", "Write a few words.")


def _check_ids(model: LoadedModel, ids: list[int], number: int | None, *, is_target: bool) -> None:
    kind = "target" if is_target else "prompt"
    which = f"The {kind}" if number is None else f"{kind.capitalize()} {number + 1}"
    if not ids:
        raise PromptRefused(f"{which} has no tokens.", "Write a few words.")
    limit = model.max_length
    if limit is not None and len(ids) > limit:
        raise PromptRefused(
            f"{which} is {len(ids):,} tokens long; {model.title} reads {limit:,}.",
            f"Shorten it by {len(ids) - limit:,} tokens.",
        )
    reader: Any = model.model.get_decoder() if is_target else model.model
    vocabulary = int(reader.get_input_embeddings().weight.shape[0])
    wrong = [one for one in ids if not 0 <= one < vocabulary]
    if wrong:
        raise PromptRefused(
            f"{which} has the token id {wrong[0]}; {model.title} knows 0 to {vocabulary - 1}."
        )


def _rows(given: Tensor | Sequence | None) -> list[list[int]]:
    listed = given.tolist() if isinstance(given, Tensor) else list(given or ())
    if not listed:
        raise PromptRefused("There is no prompt.", "Give at least one token id.")
    nested = listed if isinstance(listed[0], list | tuple | Tensor) else [listed]
    return [[int(one) for one in row] for row in nested]
