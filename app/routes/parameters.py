"""The query of a request, read strictly: what is missing, misspelt or out of bounds is refused by name."""

import re
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import QueryParams
from starlette.requests import Request

from attnscope.kernels.errors import CaptureMissing, InvalidCall

_INTEGER = re.compile(r"[0-9]{1,9}")
_CAPTURE = re.compile(r"[0-9a-f]{32}")


class Parameters:
    """Reads one request's query; call `done` last, so that a misspelt name does not pass unseen."""

    def __init__(self, request: Request) -> None:
        self._query = QueryParams(request.scope["query_string"])
        self._read: set[str] = set()

    def integer(self, name: str, default: int | None = None, *, least: int = 0) -> int:
        """A whole number of at least `least`; required when there is no default."""
        text = self._text(name)
        if text is None and default is not None:
            return default
        if text is None:
            raise InvalidCall(f"The parameter {name} is missing.")
        if not _INTEGER.fullmatch(text) or int(text) < least:
            raise InvalidCall(f"{name} must be a whole number from {least} up, got {text[:40]!r}.")
        return int(text)

    def choice(self, name: str, *options: str) -> str:
        """One of the options; the first when the parameter is not given."""
        text = self._text(name)
        if text is None:
            return options[0]
        if text not in options:
            raise InvalidCall(f"{name} must be one of {', '.join(options)}, got {text[:40]!r}.")
        return text

    def word(self, name: str, pattern: str) -> str:
        """A text that matches a regular expression as a whole; required."""
        text = self._text(name)
        if text is None:
            raise InvalidCall(f"The parameter {name} is missing.")
        if not re.fullmatch(pattern, text):
            raise InvalidCall(f"{name} cannot be {text[:40]!r}.")
        return text

    def has(self, name: str) -> bool:
        """Whether the parameter is given, whatever its value."""
        return name in self._query

    def optional(self, name: str) -> int | None:
        """A whole number, or None when the parameter is not given."""
        return None if name not in self._query else self.integer(name)

    def done(self) -> None:
        """Refuse parameters that nobody read."""
        unknown = sorted(set(self._query) - self._read)
        if unknown:
            raise InvalidCall(f"There is no parameter {unknown[0][:40]!r}.")

    def _text(self, name: str) -> str | None:
        self._read.add(name)
        return self._query.get(name)


def capture_id(path_parameters: Mapping[str, Any]) -> str:
    """The capture named in the path; raises CaptureMissing when it cannot be one."""
    text = str(path_parameters["id"])
    if not _CAPTURE.fullmatch(text):
        raise CaptureMissing("That is not a capture's id.", "Run a prompt to make one.")
    return text
