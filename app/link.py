"""A view as a link: the parameters of a page's URL, read and written one by one.

Whatever a stranger writes in a link becomes the default with a notice, never an exception.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attnscope.app.prompts.uploads import shortened
from attnscope.kernels.errors import AttnscopeError


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One query parameter: its attribute, how it is read and how it is written.

    Attributes:
        name: In the URL.
        attribute: Of the page's view.
        read: Its value from text; a ValueError, or an error of ours that says more, when it cannot.
        write: The text of a value.
        hint: What it should have been, for the notice.
    """

    name: str
    attribute: str
    read: Callable[[str], Any]
    write: Callable[[Any], str] = str
    hint: str = ""


def values_of(
    parameters: Sequence[Parameter], query: Mapping[str, str]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Read the attributes of a view from query parameters.

    Args:
        parameters: Those of the page.
        query: Names and values as they stand in the URL, already percent-decoded.

    Returns:
        Values by attribute, and one plain-text notice for each parameter that could not be used.
    """
    values: dict[str, Any] = {}
    notices = []
    for parameter in parameters:
        text = query.get(parameter.name)
        if text is None:
            continue
        try:
            values[parameter.attribute] = parameter.read(text)
        except AttnscopeError as error:
            notices.append(str(error))
        except ValueError:
            notices.append(
                f"The link's {parameter.name} “{shortened(text, 40)}” is not {parameter.hint}; "
                "the default is shown."
            )
    return values, tuple(notices)


def query_of(parameters: Sequence[Parameter], view: object, default: object) -> dict[str, str]:
    """Write a view as query parameters; whatever equals the default is left out."""
    return {
        parameter.name: parameter.write(getattr(view, parameter.attribute))
        for parameter in parameters
        if getattr(view, parameter.attribute) != getattr(default, parameter.attribute)
    }


def choice(name: str, choices: Sequence[str], attribute: str = "") -> Parameter:
    """A parameter that takes one of a few words."""

    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(text)
        return text

    hint = f"one of {', '.join(choices)}"
    return Parameter(name=name, attribute=attribute or name, read=read, hint=hint)


def number(name: str, attribute: str = "") -> Parameter:
    """A parameter that takes a whole number from 0."""
    return Parameter(
        name=name, attribute=attribute or name, read=natural, hint="a whole number from 0"
    )


def switch(name: str, attribute: str = "") -> Parameter:
    """A parameter that is 0 or 1."""
    return Parameter(
        name=name, attribute=attribute or name, read=_flag, write=plainly, hint="0 or 1"
    )


def matching(name: str, pattern: str, hint: str, attribute: str = "") -> Parameter:
    """A parameter whose whole text matches a regular expression."""
    compiled = re.compile(pattern)

    def read(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(text)
        return text

    return Parameter(name=name, attribute=attribute or name, read=read, hint=hint)


def natural(text: str) -> int:
    """Read a whole number from 0 to 999 999 999; a ValueError for anything else."""
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError(text)
    return int(text)


def line(text: str) -> str:
    """Read one printable line of at most 300 characters; a ValueError for anything else."""
    if not text or len(text) > 300 or not text.isprintable():
        raise ValueError(text)
    return text


def plainly(value: object) -> str:
    """Write a value as a link would: 0 and 1 for truth, no fraction where there is none."""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(text)
    return text == "1"
