"""The patterns that a page offers, with what can be set of each, and how a link and a worker are told of one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attnscope.profiling.units import count

LONGEST = 131_072
"""Tokens of a mask that is drawn, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A whole number that can be set.

    Attributes:
        name: As the pattern's parameter.
        title: For a label.
        default: At first.
        least: Smallest.
        most: Largest.
        unit: What it counts.
    """

    name: str
    title: str
    default: int
    least: int = 1
    most: int = LONGEST
    unit: str = "tokens"

    @property
    def limits(self) -> str:
        """Its limits and its unit in words."""
        return f"{count(self.least)} to {count(self.most)} {self.unit}".strip()


_WINDOW = Setting(name="window", title="Window, tokens", default=32)
_GLOBAL = Setting(name="global_tokens", title="Global tokens", default=4, least=0)
_STRIDE = Setting(name="stride", title="Stride, tokens", default=8)
_BLOCK = Setting(name="block", title="Block, tokens", default=16)

SETTINGS: dict[str, tuple[Setting, ...]] = {
    "causal": (),
    "sliding_window": (_WINDOW,),
    "sinks_window": (
        _WINDOW,
        Setting(name="sinks", title="Sinks, first tokens", default=4, least=0),
    ),
    "local": (_WINDOW,),
    "dilated": (
        Setting(name="window", title="Window, tokens", default=64),
        Setting(name="dilation", title="Dilation, tokens", default=2),
    ),
    "longformer": (_WINDOW, _GLOBAL),
    "bigbird": (
        Setting(name="window", title="Window", default=48),
        Setting(name="global_tokens", title="Global", default=16, least=0),
        Setting(
            name="random_blocks", title="Random", default=2, least=0, most=64, unit="blocks a row"
        ),
        Setting(name="block", title="Block", default=16),
        Setting(name="seed", title="Seed", default=0, least=0, most=2**32 - 1, unit=""),
    ),
    "strided": (_STRIDE,),
    "strided_slide": (_STRIDE,),
    "block_sparse": (_BLOCK, _STRIDE),
    "axial": (
        Setting(name="height", title="Grid rows", default=512, unit="rows"),
        Setting(name="width", title="Grid columns", default=16, unit="tokens a row"),
    ),
    "chunked": (Setting(name="chunk", title="Chunk, tokens", default=64),),
    "rule": (),
    "matrix": (),
}
"""What can be set of each family that has a form; in display order."""

IMPLIED_CAUSAL = ("causal", "sliding_window", "chunked")
"""Families that hide what follows the query by themselves."""

Settings = tuple[tuple[str, int], ...]
"""Numbers that differ from the defaults, by `family.name`, sorted."""

Described = dict[str, Any]
"""A pattern as JSON: key, causal, parameters."""


def title(key: str) -> str:
    """A family's name for readers."""
    return key.replace("_", " ")


def values(key: str, changed: Settings) -> dict[str, int]:
    """The numbers of a family, by name."""
    given = dict(changed)
    return {each.name: given.get(f"{key}.{each.name}", each.default) for each in SETTINGS[key]}


def with_value(changed: Settings, key: str, name: str, value: int) -> Settings:
    """The changed numbers after one more change; a default is left out."""
    default = next(each.default for each in SETTINGS[key] if each.name == name)
    others = {at: number for at, number in changed if at != f"{key}.{name}"}
    if value != default:
        others[f"{key}.{name}"] = value
    return tuple(sorted(others.items()))


def described(
    key: str, changed: Settings, *, causal: bool, rule: str = "", matrix: str = ""
) -> Described:
    """A pattern as a worker is told of it; a matrix by its fingerprint."""
    parameters: Mapping[str, Any] = values(key, changed)
    if key == "rule":
        parameters = {"text": rule}
    elif key == "matrix":
        parameters = {"matrix": matrix}
    return {"key": key, "causal": causal, "parameters": dict(parameters)}


def read_settings(text: str) -> Settings:
    """Read changed numbers: `sinks_window.window.64,bigbird.block.32`.

    Raises:
        ValueError: Something else, or out of limits.
    """
    known = {f"{key}.{each.name}": each for key, some in SETTINGS.items() for each in some}
    found: dict[str, int] = {}
    for part in text.split(","):
        name, _, number = part.rpartition(".")
        setting = known.get(name)
        if setting is None or not (number.isascii() and number.isdecimal()) or len(number) > 10:
            raise ValueError(text)
        if not setting.least <= int(number) <= setting.most:
            raise ValueError(text)
        found[name] = int(number)
    return tuple(sorted(found.items()))


def write_settings(changed: Settings) -> str:
    """Write changed numbers as `read_settings` takes them."""
    return ",".join(f"{name}.{number}" for name, number in changed)
