"""The prompt of a command: typed, from a file, or the first example; or a picture."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnscope.app.kept.pictures import read_picture
from attnscope.app.prompts.examples import example, shipped_picture
from attnscope.app.prompts.uploads import typed, uploaded
from attnscope.kernels.errors import InvalidCall

if TYPE_CHECKING:
    from attnscope.models.loading import LoadedModel


def add_prompt(parser: argparse.ArgumentParser) -> None:
    """Adds the options that name a prompt."""
    parser.add_argument("prompt", nargs="?", help="the prompt; the first example when left out")
    parser.add_argument("--file", type=Path, help="read the prompt from this file instead")
    parser.add_argument(
        "--image",
        type=Path,
        help="PNG or JPEG for a model that reads pictures (default: one that ships)",
    )


def read_by(model: "LoadedModel", given: argparse.Namespace) -> dict[str, Any]:
    """What a model reads, as `pairs.read_batch` takes it: the prompt, or the picture.

    Raises:
        InvalidCall: A prompt for a model that reads a picture, or both.
        PromptRefused: See `prompt_of`, or it is no picture.
    """
    if given.image is None and not model.reads_pictures:
        return {"text": prompt_of(given, given.model)}
    if given.prompt is not None or given.file is not None:
        raise InvalidCall(
            f"A prompt was given, and {model.title} reads a picture."
            if model.reads_pictures
            else "Both a prompt and --image were given.",
            "Give --image alone.",
        )
    return {"picture": read_picture((given.image or shipped_picture()).read_bytes())}


def prompt_of(given: argparse.Namespace, model: str = "") -> str:
    """The prompt that was asked for, or the first example of a model.

    Raises:
        InvalidCall: It was given twice, or a picture was.
        PromptRefused: It is empty, too long, or its file cannot be read.
    """
    if given.image is not None:
        raise InvalidCall("A picture was given, and a text is read here.", "Leave --image out.")
    if given.file is not None and given.prompt is not None:
        raise InvalidCall("Both a prompt and --file were given.", "Give one of them.")
    if given.file is not None:
        return uploaded(given.file.read_bytes(), given.file.name)[0].text
    return example("", model).text if given.prompt is None else typed(given.prompt).text
