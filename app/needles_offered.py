"""What can be asked of a grid of needles, how attention can run in it, and how both are written and read."""

import re
from dataclasses import dataclass
from typing import Any

from attnscope.kernels.errors import InvalidCall
from attnscope.profiling.units import count

TASKS = {
    "repetition": "Repetition",
    "passkey": "Pass key",
    "single_key": "Key and number",
    "multi_key": "Key among others",
}
"""Titles of `models.needle_trials.TASKS`."""
PATTERNS = {
    "": "as the model is",
    "sliding_window": "sliding window",
    "sinks_window": "sinks and window",
}
MOST_SEEDS, LONGEST, MOST_SINKS = 50, 1_048_576, 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How attention runs.

    Attributes:
        backend: A name of the backend registry.
        pattern: One of `PATTERNS`.
        window: Tokens a query sees, its own included; of a pattern.
        sinks: First tokens that every query sees; of sinks and window.
    """

    backend: str = "tiled"
    pattern: str = ""
    window: int = 64
    sinks: int = 4

    @property
    def described(self) -> dict[str, Any] | None:
        """The pattern as a worker is told of it."""
        if not self.pattern:
            return None
        parameters = {"window": self.window}
        if self.pattern == "sinks_window":
            parameters["sinks"] = self.sinks
        return {"key": self.pattern, "causal": True, "parameters": parameters}

    @property
    def title(self) -> str:
        """In a few words."""
        numbers = {
            "": ", as the model is",
            "sliding_window": f", a window of {count(self.window)}",
            "sinks_window": f", {count(self.sinks)} sinks and a window of {count(self.window)}",
        }
        return f"{self.backend}{numbers[self.pattern]}"


def read_lengths(text: str) -> tuple[int, ...]:
    """Read `64, 128, 256`; see `_numbers`."""
    return tuple(int(each) for each in _numbers(text, "length", r"[0-9]{1,7}", 1, LONGEST))


def read_depths(text: str) -> tuple[float, ...]:
    """Read `0, 50, 100`; see `_numbers`."""
    return _numbers(text, "depth", r"[0-9]{1,3}(\.[0-9]{1,3})?", 0, 100)


def write_numbers(values: tuple[float, ...], between: str = ", ") -> str:
    """Write lengths or depths as people do."""
    return between.join(f"{each:.10g}" for each in values)


def read_setting(text: str) -> Setting:
    """Read `tiled`, `tiled.sliding_window.64` or `tiled.sinks_window.64.4`; a ValueError for anything else."""
    backend, *rest = text.split(".")
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", backend):
        raise ValueError(text)
    if not rest:
        return Setting(backend=backend)
    pattern, *digits = rest
    names = {"sliding_window": ("window",), "sinks_window": ("window", "sinks")}.get(pattern, ())
    if (
        not names
        or len(digits) != len(names)
        or not all(re.fullmatch("[0-9]{1,7}", one) for one in digits)
    ):
        raise ValueError(text)
    numbers = dict(zip(names, map(int, digits), strict=True))
    if not 1 <= numbers["window"] <= LONGEST or numbers.get("sinks", 0) > MOST_SINKS:
        raise ValueError(text)
    return Setting(backend=backend, pattern=pattern, **numbers)


def write_setting(setting: Setting) -> str:
    """Write a setting as `read_setting` takes it."""
    described = setting.described
    parts = [setting.backend]
    if described is not None:
        parts += [setting.pattern, *map(str, described["parameters"].values())]
    return ".".join(parts)


def _numbers(text: str, what: str, form: str, least: float, most: float) -> tuple[float, ...]:
    """Numbers with commas between them, ascending, each once.

    Raises:
        InvalidCall: There is none, or one cannot be read or is out of bounds.
    """
    parts = [part.strip() for part in text.replace(";", ",").split(",") if part.strip()]
    for part in parts:
        if not re.fullmatch(form, part) or not least <= float(part) <= most:
            raise InvalidCall(
                f"“{part[:20]}” is no {what}.",
                f"Write numbers from {least:g} to {most:,.0f}, with commas.",
            )
    if not parts:
        raise InvalidCall(f"The grid names no {what}.", "Write one or several, with commas.")
    return tuple(sorted(set(map(float, parts))))
