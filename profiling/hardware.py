"""The devices that makers sell, with what they publish of them, and which of them this machine has."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import MappingProxyType

import torch

from attnscope.kernels.errors import InvalidCall

PATH = Path(__file__).resolve().parents[1] / "assets" / "devices.toml"
_GIB = 2**30
_SAME_MEMORY = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSpec:
    """A device as its maker describes it, or as a user describes one's own.

    Attributes:
        name: For people and for `--device`.
        memory_bytes: Of device memory, from the capacity on the label.
        bandwidth: Of device memory, bytes a second.
        peak_flops: Dense floating-point operations a second by input type: float32 as it is, tf32,
            float16, bfloat16 and float8 of the matrix units. A type without a published rate is
            left out.
        source: Where the maker publishes the figures.
        checked: When they were held to what `seen` names; None where they never were.
        seen: Where they were read then.
        unseen: The figures that stand in none of those: "memory", "bandwidth", "multiprocessors",
            "boost clock" or an input type.
        maker: Of the device; empty for one's own, as are the next two.
        kind: "data centre", "workstation" or "consumer".
        architecture: The maker's word.
        capability: CUDA compute capability, or None.
        multiprocessors: Streaming multiprocessors, compute units or cores, or None.
        boost_mhz: Clock of the rates, or None.
        reported: The name its driver gives, or None where it is not known.
    """

    name: str
    memory_bytes: int
    bandwidth: float
    peak_flops: Mapping[str, float]
    source: str
    checked: date | None = None
    seen: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    maker: str = ""
    kind: str = ""
    architecture: str = ""
    capability: tuple[int, int] | None = None
    multiprocessors: int | None = None
    boost_mhz: float | None = None
    reported: str | None = None

    def __post_init__(self) -> None:
        rates = (self.memory_bytes, self.bandwidth, *self.peak_flops.values())
        if not self.peak_flops or any(rate <= 0 for rate in rates):
            raise InvalidCall(
                f"A device needs a memory, a bandwidth and a peak rate above 0, got {rates}."
            )

    @property
    def cited(self) -> str:
        """The source and, of a maker's device, how far its figures were seen there or where it is quoted."""
        if not self.maker:
            return self.source
        if self.checked is None:
            return f"{self.source}; source not seen by us"
        but = f", but for {', '.join(self.unseen)}" if self.unseen else ""
        return f"{self.source}; seen there or where it is quoted, {self.checked.isoformat()}{but}"


@cache
def devices() -> tuple[DeviceSpec, ...]:
    """Every device of the table, in its order.

    Raises:
        InvalidCall: The table that ships is missing or damaged.
    """
    try:
        table = tomllib.loads(PATH.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise InvalidCall(
            f"The table of devices {PATH.name} cannot be read: {error}.", "Check it out again."
        ) from error
    return tuple(_spec(entry, table["seen"]) for entry in table["device"])


def device(name: str) -> DeviceSpec:
    """The device of that name, whatever its case; a part of a name will do if only one has it.

    Raises:
        InvalidCall: None or several have it; the message names the nearest.
    """
    wanted = name.strip().casefold()
    named = {spec.name.casefold(): spec for spec in devices()}
    if wanted in named:
        return named[wanted]
    holding = [spec for key, spec in named.items() if wanted and wanted in key]
    if len(holding) == 1:
        return holding[0]
    near = holding or [named[key] for key in get_close_matches(wanted, named, n=5, cutoff=0.4)]
    words = ", ".join(spec.name for spec in near) or ", ".join(spec.name for spec in devices())
    how_many = "Several devices are" if holding else "No device is"
    raise InvalidCall(f"{how_many} called {name!r}.", f"Use one of {words}.")


def detected(where: torch.device) -> DeviceSpec | None:
    """What the table says of a CUDA device of this machine; None for any other, or an unlisted one.

    Args:
        where: The device as PyTorch calls it. Two sizes of a card report one name: the memory
            tells them apart.
    """
    if where.type != "cuda" or not torch.cuda.is_available():
        return None
    found = torch.cuda.get_device_properties(where)
    return listed(found.name, found.total_memory)


def listed(reported: str, memory_bytes: int) -> DeviceSpec | None:
    """The device whose driver gives this name and about this much memory, or None."""
    return next(
        (
            spec
            for spec in devices()
            if spec.reported == reported
            and abs(memory_bytes / spec.memory_bytes - 1) <= _SAME_MEMORY
        ),
        None,
    )


def _spec(entry: dict, places: Mapping[str, str]) -> DeviceSpec:
    capability = entry.get("capability")
    major, minor = capability.split(".") if capability else (None, None)
    return DeviceSpec(
        name=entry["name"],
        memory_bytes=round(entry["memory_gib"] * _GIB),
        bandwidth=entry["bandwidth_gb_s"] * 1e9,
        peak_flops=MappingProxyType({key: rate * 1e12 for key, rate in entry["tflops"].items()}),
        source=entry["source"],
        checked=entry.get("checked"),
        seen=tuple(places[key] for key in entry.get("seen", ())),
        unseen=tuple(entry.get("unseen", ())),
        maker=entry["maker"],
        kind=entry["kind"],
        architecture=entry["architecture"],
        capability=(int(major), int(minor)) if major and minor else None,
        multiprocessors=entry.get("multiprocessors"),
        boost_mhz=entry.get("boost_mhz"),
        reported=entry.get("reported"),
    )
