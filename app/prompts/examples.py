"""The prompts shipped with the dashboard, and which of them a first visit sees."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from attnscope.kernels.errors import PromptRefused

PATH = Path(__file__).resolve().parents[2] / "assets" / "prompts" / "examples.json"
OPENING = (
    "One snowy morning Kedrun opened the drawer, and the brown lantern was gone. Kedrun was very sad.\n\n"
    "So he went to the stone tower and"
)
"""What is continued where no prompt was named: the shipped examples are whole texts, after which a model ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One shipped prompt.

    Attributes:
        title: What a picker shows; also how a link names it.
        text: The prompt.
        about: What to look for, one sentence.
        model: The shipped model it is for; empty for any that reads English.
        picture: The file of one that is a picture, beside the file of prompts; empty of a text.
    """

    title: str
    text: str
    about: str
    model: str = ""
    picture: str = ""


def examples() -> tuple[Example, ...]:
    """Read the shipped prompts, the one of a first visit first.

    Raises:
        PromptRefused: The file that ships with the dashboard is missing.
    """
    try:
        return _read(PATH)
    except OSError as error:
        raise PromptRefused(
            f"The shipped prompts are missing: {PATH} cannot be read.",
            "Install the dashboard again, with its assets.",
        ) from error


@cache
def _read(path: Path) -> tuple[Example, ...]:
    entries = json.loads(path.read_text(encoding="utf-8"))
    return tuple(
        Example(
            title=entry["title"],
            text=entry["text"],
            about=entry["about"],
            model=entry.get("model", ""),
            picture=entry.get("picture", ""),
        )
        for entry in entries
    )


def examples_for(model: str, *, pictures: bool = False) -> tuple[Example, ...]:
    """The shipped prompts to try on a model: its own where it has some, else texts, or the pictures."""
    own = tuple(entry for entry in examples() if entry.model == model)
    if pictures:
        return own or tuple(entry for entry in examples() if entry.picture)
    return own or tuple(entry for entry in examples() if not entry.model)


def shipped_picture(name: str = "") -> Path:
    """The file of a shipped picture, the first when none is named.

    Raises:
        PromptRefused: There is none of that name.
    """
    shipped = [entry.picture for entry in examples() if entry.picture]
    found = next((one for one in shipped if name in ("", one)), None)
    if found is None:
        raise PromptRefused("The picture of this example is not shipped here.", "Upload one.")
    return PATH.with_name(found)


def example(title: str, model: str = "") -> Example:
    """Find an example by its title; an empty title is the first one of the model.

    Raises:
        PromptRefused: No example has that title.
    """
    if not title:
        return examples_for(model)[0]
    found = next((entry for entry in examples() if entry.title == title), None)
    if found is None:
        raise PromptRefused(
            "The example this link names is not shipped here.", "Choose one from the list."
        )
    return found
