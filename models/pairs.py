"""From a source and a target to what an encoder-decoder reads; of any other model, a prompt or a picture as it is.

A target is what the decoder reads: its begin mark, then the text, without the end mark. So the query of
a target token has read everything up to that token, and says the next.

T tokens of a target.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from attnscope.kernels.errors import InvalidCall, PromptRefused
from attnscope.models.encoded import Source
from attnscope.models.hub import Progress
from attnscope.models.loading import LoadedModel
from attnscope.models.pictures import picture_alone, picture_source
from attnscope.models.prompting import Batch, batch_of, check_texts, padded, read_by_place

if TYPE_CHECKING:
    from PIL import Image

LONGEST_TARGET = 128
"""Tokens that a model says at most where no target is given."""


def read_batch(
    model: LoadedModel,
    text: str | Sequence[str] | None = None,
    *,
    input_ids: Tensor | Sequence | None = None,
    attention_mask: Tensor | Sequence | None = None,
    target: str | Sequence[str] | None = None,
    picture: "Image.Image | None" = None,
    progress: Progress | None = None,
) -> Batch:
    """What a model reads, whatever its kind.

    Args:
        model: Tokenises. Of an encoder-decoder `text` and `input_ids` are the source.
        text: One prompt or several, or None.
        input_ids: `[n]`, `[B, n]` or ragged lists, or None.
        attention_mask: Like `input_ids`, or None.
        target: A text for each source; where None or empty the model's own, said greedily.
        picture: The source of a model that reads pictures, in place of a text.
        progress: Called after each token of a target that the model says; it may raise to stop.

    Raises:
        InvalidCall: As of `batch_of`, or targets for another number of sources.
        PromptRefused: As of `batch_of`, a target for a model that has no encoder, or a picture for one
            that reads none, or none for one that does.
    """
    _check_picture(model, picture)
    is_pair = model.kind == "encoder-decoder"
    batch = (
        batch_of(model, text, input_ids, attention_mask)
        if picture is None
        else picture_alone(picture_source(model, picture))
    )
    targets = _targets(target, batch.size)
    if is_pair:
        source = batch.source or _text_source(model, batch)
        return _pair(model, source, targets, progress)
    if any(targets):
        raise PromptRefused(
            f"{model.title} is no encoder-decoder: it reads one prompt, and takes no target.",
            "Leave the target out.",
        )
    return batch


def begun(
    model: LoadedModel,
    text: str | Sequence[str] | None = None,
    *,
    input_ids: Tensor | Sequence | None = None,
    picture: "Image.Image | None" = None,
) -> Batch:
    """What a model reads before it says its first token: a prompt; of an encoder-decoder its source and begin mark.

    Args:
        model: Tokenises.
        text: As for `read_batch`.
        input_ids: Likewise.
        picture: Likewise.

    Raises:
        InvalidCall: As of `batch_of`.
        PromptRefused: As of `read_batch`.
    """
    if model.kind != "encoder-decoder":
        return read_batch(model, text, input_ids=input_ids, picture=picture)
    _check_picture(model, picture)
    source = (
        _text_source(model, batch_of(model, text, input_ids, None))
        if picture is None
        else picture_source(model, picture)
    )
    sources = len(source.encoded.spans)
    return padded(model, [[_begin_mark(model)]] * sources, ("",) * sources, source=source)


def _check_picture(model: LoadedModel, picture: "Image.Image | None") -> None:
    if model.reads_pictures and picture is None:
        raise PromptRefused(f"{model.title} reads a picture.", "Give it one, a PNG or a JPEG.")
    if not model.reads_pictures and picture is not None:
        raise PromptRefused(f"{model.title} reads text, and no picture.", "Leave the picture out.")


def _targets(given: str | Sequence[str] | None, size: int) -> tuple[str, ...]:
    if given is None:
        return ("",) * size
    targets = (given,) if isinstance(given, str) else tuple(given)
    if len(targets) != size:
        raise InvalidCall(
            f"There are {len(targets)} targets for {size} sources.", "Give one for each, or none."
        )
    return tuple(target if target.strip() else "" for target in targets)


def _text_source(model: LoadedModel, batch: Batch) -> Source:
    ids_Bn, seen_Bn = batch.tensors(model.device)
    return Source(
        inputs={"input_ids": ids_Bn, "attention_mask": seen_Bn},
        encoded=read_by_place(model, batch),
    )


def _pair(
    model: LoadedModel, source: Source, targets: tuple[str, ...], progress: Progress | None
) -> Batch:
    read = [
        _given(model, target) if target else _said(model, source, at, progress)
        for at, target in enumerate(targets)
    ]
    texts = tuple(
        target or "".join(_plain(model, ids)).strip()
        for target, ids in zip(targets, read, strict=True)
    )
    return padded(model, read, texts, source=source)


def _plain(model: LoadedModel, ids: Sequence[int]) -> list[str]:
    marks = set(model.marks(ids))
    return [token for at, token in enumerate(model.tokens(ids)) if at not in marks]


def _given(model: LoadedModel, target: str) -> list[int]:
    """A text as the decoder was trained to read it: transformers shifts labels so."""
    check_texts((target,))
    tokenizer: Any = model.tokenizer
    ids = list(map(int, tokenizer(text_target=target)["input_ids"]))
    end = tokenizer.eos_token_id
    if end is not None and end not in ids[-2:]:
        ids.append(int(end))  # What is shifted out is the last label.
    shift = getattr(model.model, "prepare_decoder_input_ids_from_labels", None)
    if shift is not None:
        return [int(one) for one in shift(labels=torch.tensor([ids]))[0]]
    start = _begin_mark(model)
    return [start, *ids[:-1]]


def _begin_mark(model: LoadedModel) -> int:
    settings: Any = model.model.generation_config
    said = (settings.decoder_start_token_id, settings.bos_token_id, model.tokenizer.bos_token_id)
    found = next((one for one in said if isinstance(one, int)), None)
    if found is None:
        raise PromptRefused(
            f"{model.title} does not say with which token a target begins.",
            "Leave the target empty: the model then says its own.",
        )
    return found


def _said(model: LoadedModel, source: Source, at: int, progress: Progress | None) -> list[int]:
    """What the model says of one source, greedily, as its decoder read it: the last token is only said."""
    most = min(model.max_length or LONGEST_TARGET, LONGEST_TARGET)
    one = {name: tensor[at : at + 1] for name, tensor in source.inputs.items()}
    told = StoppingCriteriaList([] if progress is None else [_Told(progress, most)])
    live: Any = model.model
    with model.lock, torch.no_grad():
        said_T = live.generate(
            **one, do_sample=False, num_beams=1, max_new_tokens=most, stopping_criteria=told
        )[0]
    return [int(token) for token in said_T[:-1]]


class _Told(StoppingCriteria):
    """Stops nothing; tells of every token."""

    def __init__(self, progress: Progress, most: int) -> None:
        self._progress = progress
        self._most = most

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: object) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        said = input_ids.shape[-1] - 1
        self._progress(min(1.0, said / self._most), f"saying target token {said}")
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
