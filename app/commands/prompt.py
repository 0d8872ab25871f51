"""The prompt of a command: typed, from a file, or the first example."""

import argparse
from pathlib import Path

from attnscope.app.prompts.examples import example
from attnscope.app.prompts.uploads import typed, uploaded
from attnscope.kernels.errors import InvalidCall


def add_prompt(parser: argparse.ArgumentParser) -> None:
    """Adds the options that name a prompt."""
    parser.add_argument("prompt", nargs="?", help="the prompt; the first example when left out")
    parser.add_argument("--file", type=Path, help="read the prompt from this file instead")


def prompt_of(given: argparse.Namespace, model: str = "") -> str:
    """The prompt that was asked for, or the first example of a model.

    Raises:
        InvalidCall: It was given twice.
        PromptRefused: It is empty, too long, or its file cannot be read.
    """
    if given.file is not None and given.prompt is not None:
        raise InvalidCall("Both a prompt and --file were given.", "Give one of them.")
    if given.file is not None:
        return uploaded(given.file.read_bytes(), given.file.name)[0].text
    return example("", model).text if given.prompt is None else typed(given.prompt).text
