"""The forward kernels' configurations as a data file, `tuned.toml`, that a measurement rewrites.

An entry says how one kernel is cut for one kind of call on some devices, and where that is known
from: chosen on paper and compiled, or measured, on what and when. Imports no Triton.
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch

PATH = Path(__file__).with_name("tuned.toml")

Kernel = Literal["portable", "hopper", "gluon"]
"""`flash_forward`, `flash_hopper` and `flash_gluon`."""

Rule = Literal["full", "causal", "window", "padded"]
"""Kinds of calls: no bound; one after the query; one before it; keys hidden by a mask as well."""

Origin = Mapping[str, str]
"""Where entries are known from; `how`, and of a measurement `device`, `date` and the versions."""

_HEADER = """\
# How the forward kernels are cut, and which of them answers: `scripts/gpu --only tune` measures, and writes this
# file anew into its folder of results, to be copied here. Of the entries of a kernel that fit a call, the first counts.
# tiles are queries and keys; half is float16 and bfloat16; widths are those of tiles, ascend, and serve narrower ones.
# The gluon or the hopper kernel answers what it takes where its entry is preferred, the portable one everywhere else.
# Shared memory of a block: 227 KiB from 9.0 on, 163 on 8.0 and 8.7, 99 on the others of that generation.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """One line of the file.

    Attributes:
        kernel: Which of them.
        capabilities: Of devices, as patterns: "9.*" is every one of Hopper's generation.
        dtype: "float32", or "half" for the 16-bit ones.
        width: Of a tile, or of both tiles of heads between powers of two; it serves narrower heads as
            well, where no narrower entry comes first.
        rules: Kinds of calls.
        tiles: Queries and keys of a tile; powers of 2, 16 at least.
        warps: Of a program, before any that specialisation adds.
        stages: Tiles in flight between device memory and shared memory.
        specialized: Whether copies and products have warps of their own; asked of hopper only.
        persistent: Whether a program takes one block of queries after the other; asked of hopper only.
        preferred: Whether the hopper or the gluon kernel answers such calls.
        origin: Key of the file's origins.
    """

    kernel: Kernel
    capabilities: tuple[str, ...]
    dtype: Literal["float32", "half"]
    width: int
    rules: tuple[Rule, ...]
    tiles: tuple[int, int]
    warps: int
    stages: int
    specialized: bool = False
    persistent: bool = False
    preferred: bool = False
    origin: str

    def fits(
        self,
        kernel: Kernel,
        width: int,
        dtype: torch.dtype,
        capability: tuple[int, int],
        rule: Rule,
    ) -> bool:
        """Whether it is an entry for such a call; `width` is that of the call's tiles."""
        device = f"{capability[0]}.{capability[1]}"
        return (
            self.kernel == kernel
            and self.width >= width
            and self.dtype == ("float32" if dtype == torch.float32 else "half")
            and rule in self.rules
            and any(fnmatchcase(device, pattern) for pattern in self.capabilities)
        )


def read(text: str) -> tuple[tuple[Tuned, ...], dict[str, Origin]]:
    """The entries and origins of a file's text."""
    found = tomllib.loads(text)
    return tuple(_entry(each) for each in found["forward"]), found["origins"]


@cache
def shipped_entries() -> tuple[Tuned, ...]:
    """The entries that ship."""
    return read(PATH.read_text())[0]


def written(entries: Iterable[Tuned], origins: Mapping[str, Origin]) -> str:
    """A file's text: an entry a line, and only the origins that entries name."""
    entries = tuple(entries)
    named = {each.origin for each in entries}
    lines = [_HEADER.rstrip(), "forward = [", *(f"  {_line(each)}," for each in entries), "]"]
    for name, origin in origins.items():
        if name in named:
            lines += ["", f"[origins.{name}]"]
            lines += [f"{key} = {_value(value)}" for key, value in origin.items()]
    return "\n".join(lines) + "\n"


def replaced(
    entries: Iterable[Tuned],
    kernel: Kernel,
    width: int,
    dtype: torch.dtype,
    capability: tuple[int, int],
    rule: Rule,
    **changes: Any,
) -> tuple[Tuned, ...]:
    """The entries with the one for such a call changed, and that one's other rules as they were."""
    asked = (kernel, width, dtype, capability, rule)
    changed: list[Tuned] = []
    done = False
    for entry in entries:
        if done or not entry.fits(*asked):
            changed.append(entry)
            continue
        done = True
        changed.append(replace(entry, **{"rules": (rule,), **changes}))
        others = tuple(each for each in entry.rules if each != rule)
        if others:
            changed.append(replace(entry, rules=others))
    return tuple(changed)


def _entry(found: dict[str, Any]) -> Tuned:
    lists = {name: tuple(value) for name, value in found.items() if isinstance(value, list)}
    return Tuned(**{**found, **lists})


def _line(entry: Tuned) -> str:
    shown = ["kernel", "capabilities", "dtype", "width", "rules", "tiles", "warps", "stages"]
    if entry.kernel == "hopper":
        shown += ["specialized", "persistent"]
    if entry.kernel != "portable":
        shown.append("preferred")
    shown.append("origin")
    return "{ " + ", ".join(f"{name} = {_value(getattr(entry, name))}" for name in shown) + " }"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(_value(each) for each in value) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)
