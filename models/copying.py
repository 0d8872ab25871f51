"""The two small models that ship to show cross-attention: one copies a word, one names squares.

What they were trained on is known, and so is the source that each target token has to read.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel, VisionEncoderDecoderModel

from attnscope.kernels.errors import InvalidCall, ModelNotFound
from attnscope.models.copying_tasks import (
    BEGIN_ID,
    LONGEST_WORD,
    SQUARES,
    Task,
    colour_ids,
    colours_of,
    letter_ids,
    letters_of,
    pixels,
    row_of_squares,
)
from attnscope.models.cross_attention import CrossCapture, cross_capture
from attnscope.models.phases import Backends
from attnscope.models.swapping import swapped

FOLDER = Path(__file__).resolve().parents[1] / "assets" / "copying"
TITLES: dict[Task, str] = {"text": "Copies a word (BART)", "image": "Names squares (ViT and GPT-2)"}


@dataclass(kw_only=True, eq=False)
class CopyingModel:
    """One of the two, live; shared, so hold `lock` while it runs.

    Attributes:
        task: text or image.
        model: In eval mode, float32.
        title: For people.
        lock: Held by whoever runs or swaps it.
    """

    task: Task
    model: PreTrainedModel
    title: str
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What a model said of a source, and what it read for that.

    Attributes:
        said: The tokens it generated, greedily, its end mark ⏎ among them.
        capture: The cross-attention, a query a token said; each query has read the one before.
        right: The key that the token of each query stands at, by the task, for all of its source.
    """

    said: tuple[str, ...]
    capture: CrossCapture
    right: tuple[int, ...]


def load_copying(task: Task, *, device: str = "cpu") -> CopyingModel:
    """Opens one of the two models.

    Args:
        task: text or image.
        device: Where it shall live.

    Raises:
        InvalidCall: No such task.
        ModelNotFound: Its folder is missing.
    """
    if task not in get_args(Task):
        raise InvalidCall(f"No task {task!r}.", f"Use {', '.join(get_args(Task))}.")
    folder = FOLDER / task
    if not (folder / "model.safetensors").is_file():
        raise ModelNotFound(
            f"The {task} copying model is missing from assets/copying.",
            "Restore that folder (git checkout assets/copying), or train it: "
            "python -m attnscope.models.copying_training --out assets/copying",
        )
    loader: Any = AutoModelForSeq2SeqLM if task == "text" else VisionEncoderDecoderModel
    model = loader.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    return CopyingModel(task=task, model=model.eval().to(device), title=TITLES[task])


def copy_text(copying: CopyingModel, text: str, *, backend: Backends = "eager") -> Copied:
    """Has the text model copy a text, all its attention on a backend.

    Args:
        copying: The text model; its lock is held.
        text: Up to `LONGEST_WORD` letters a to z and spaces.
        backend: As of `cross_capture`.

    Raises:
        InvalidCall: It is the other model.
        PromptRefused: Empty, too long, or an unknown character.
        UnsupportedCall: As of `cross_capture`.
    """
    _check_task(copying, "text")
    ids = letter_ids(text)
    source = torch.tensor([ids], device=copying.model.device)
    inputs = {"input_ids": source, "attention_mask": torch.ones_like(source)}
    said, capture = _read(copying, inputs, letters_of(ids), LONGEST_WORD + 1, backend)
    return Copied(said=said, capture=capture, right=_within(range(len(ids)), said))


def name_squares(
    copying: CopyingModel, colours: Sequence[str], *, backend: Backends = "eager"
) -> Copied:
    """Has the image model name a row of coloured squares, all its attention on a backend.

    Args:
        copying: The image model; its lock is held.
        colours: Up to `SQUARES` keys of `COLOURS`, from the left; the image is `row_of_squares`.
        backend: As of `cross_capture`.

    Raises:
        InvalidCall: It is the other model.
        PromptRefused: No colour, too many, or an unknown one.
        UnsupportedCall: As of `cross_capture`.
    """
    _check_task(copying, "image")
    count = len(colour_ids(colours)) - 1
    image = row_of_squares(colours)[None].to(copying.model.device)
    # The first patch of a vision transformer is no patch: a token that stands for the whole image.
    source = ("<class>", *colours, *("white" for _ in range(SQUARES - count)))
    said, capture = _read(copying, {"pixel_values": pixels(image)}, source, SQUARES + 1, backend)
    return Copied(said=said, capture=capture, right=_within(range(1, count + 1), said))


def _read(
    copying: CopyingModel,
    inputs: dict[str, Tensor],
    source: tuple[str, ...],
    longest: int,
    backend: Backends,
) -> tuple[tuple[str, ...], CrossCapture]:
    """Generates greedily, then runs once more over what was said, and keeps the cross-attention."""
    named = letters_of if copying.task == "text" else colours_of
    live: Any = copying.model
    with copying.lock:
        with torch.no_grad(), swapped(copying.model, backend):
            written = live.generate(**inputs, max_new_tokens=longest, do_sample=False)[0].tolist()
        read = [BEGIN_ID, *written[1:-1]]
        capture = cross_capture(
            copying.model,
            inputs | {"decoder_input_ids": torch.tensor([read], device=copying.model.device)},
            source=source,
            target=named(read),
            backend=backend,
        )
    return named(written[1:]), capture


def _within(right: range, said: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(right)[: len(said)]


def _check_task(copying: CopyingModel, task: Task) -> None:
    if copying.task != task:
        raise InvalidCall(
            f"This is the {copying.task} model, and the {task} model was needed.",
            f"Call load_copying({task!r}).",
        )
