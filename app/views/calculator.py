"""What the Calculator shows, as one value: a link reproduces it, and the worker's questions are written from it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from attnscope.app.link import (
    Parameter,
    choice,
    line,
    matching,
    plainly,
    query_of,
    switch,
    values_of,
)
from attnscope.app.prompts.links import LINK_CHARACTERS, packed, unpacked
from attnscope.kernels.errors import InvalidCall, PromptRefused
from attnscope.profiling.units import count

PHASES = ("prefill", "decode", "training")
DTYPES = ("bfloat16", "float16", "float32")
OPTIMIZERS = ("adamw", "adam", "adamw_8bit", "adafactor", "sgd")
OWN_DEVICE = "my own"
LONGEST, MOST_SEQUENCES, LARGEST_PAGE = 10_000_000, 1_000_000, 65_536
GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class CalculatorView:
    """What is calculated.

    Attributes:
        model: "demo", a bundled configuration, a hub id or a folder.
        revision: A branch, tag or commit of the hub; empty for the default.
        pasted: A configuration's JSON text, in place of the model; empty for none.
        device: A name of the table of devices, or `OWN_DEVICE`.
        memory_gib: Of one's own device, as the next two.
        bandwidth_gb_s: 10⁹ bytes a second.
        tflops: Peak in the dtype, 10¹² operations a second.
        reserve_gib: Of the device's memory, for the driver's context and the allocator's gaps.
        dtype: One of `DTYPES`.
        backend: How attention runs.
        phase: One of `PHASES`.
        batch: Sequences.
        length: Tokens a sequence.
        all_logits: In a prefill, logits of every position instead of the last.
        page: Tokens of a page of the cache; 0 for a cache that grows to fit.
        optimizer: In training.
        checkpointing: In training, layers are recomputed.
        price: Of the device an hour; 0 for none.
        check: The job that holds this very calculation against a trace and a run; empty for none.
    """

    model: str = "demo"
    revision: str = ""
    pasted: str = ""
    device: str = "H100 SXM"
    memory_gib: float = 24.0
    bandwidth_gb_s: float = 1000.0
    tflops: float = 100.0
    reserve_gib: float = 1.0
    dtype: str = "bfloat16"
    backend: str = "triton"
    phase: str = "prefill"
    batch: int = 1
    length: int = 2048
    all_logits: bool = False
    page: int = 0
    optimizer: str = "adamw"
    checkpointing: bool = False
    price: float = 0.0
    check: str = ""

    def changed(self, **values: Any) -> "CalculatorView":
        """Another calculation, which no check was made of."""
        return replace(self, check="", **values)

    @property
    def title(self) -> str:
        """The model for readers."""
        return "pasted configuration" if self.pasted else self.model

    def room(self, device: Mapping[str, Any]) -> int:
        """Bytes that there are for the model, the reserve taken off."""
        return max(int(device["memory_bytes"] - self.reserve_gib * GIB), 0)

    def own_device(self) -> dict[str, Any]:
        """One's own device, in the shape of the table's."""
        return {
            "name": OWN_DEVICE,
            "memory_bytes": int(self.memory_gib * GIB),
            "bandwidth": self.bandwidth_gb_s * 1e9,
            "peaks": dict.fromkeys(DTYPES, self.tflops * 1e12),
            "source": "as you describe it",
        }

    def questions(self, device: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Write the arguments of the questions about every length, and of those about this one.

        Args:
            device: As the question `devices` describes it.
        """
        plan = {
            "model": self.pasted or self.model,
            "revision": self.revision or None,
            "dtype": self.dtype,
            "phase": self.phase,
            "batch": self.batch,
            "all_logits": self.all_logits,
            "page": self.page or None,
            "optimizer": self.optimizer,
            "checkpointing": self.checkpointing,
            "room_bytes": self.room(device),
            "bandwidth": device["bandwidth"],
            "flops": device["peaks"].get(self.dtype),
            "price": self.price,
        }
        return plan, plan | {"backend": self.backend, "length": self.length}


def parse(parameters: Mapping[str, str]) -> tuple[CalculatorView, tuple[str, ...]]:
    """Read a view from query parameters; a notice for each that could not be used."""
    values, notices = values_of(_PARAMETERS, parameters)
    return CalculatorView(**values), notices


def encode(view: CalculatorView) -> dict[str, str]:
    """Write a view as query parameters; whatever equals the default is left out."""
    return query_of(_PARAMETERS, view, CalculatorView())


def checked_configuration(text: str) -> str:
    """A pasted configuration, small enough for a link.

    Raises:
        InvalidCall: Nothing that starts like JSON, or longer than a link carries.
    """
    text = text.strip()
    if not text.startswith("{"):
        raise InvalidCall(
            "What was pasted is not a configuration: it does not start with a brace.",
            "Paste the whole text of a config.json.",
        )
    too_long = len(text) > 100 * LINK_CHARACTERS
    if too_long or packed((text,)) is None:
        raise InvalidCall(
            f"What was pasted is too long: {count(len(text))} characters, and a link carries "
            f"about {count(LINK_CHARACTERS)} compressed.",
            "Leave out what is not the model's shape, such as lists of labels, or name a folder.",
        )
    return text


def whole(name: str, most: int, *, least: int = 1) -> Parameter:
    """A parameter that takes a whole number within bounds."""

    def read(text: str) -> int:
        if not text.isascii() or not text.isdecimal() or not least <= int(text[:12]) <= most:
            raise ValueError(text)
        return int(text)

    hint = f"a whole number from {least} to {count(most)}"
    return Parameter(name=name, attribute=name, read=read, hint=hint)


def amount(name: str, attribute: str, most: float, *, least: float = 0.0) -> Parameter:
    """A parameter that takes a number within bounds."""

    def read(text: str) -> float:
        number = float(text)
        if not least <= number <= most:
            raise ValueError(text)
        return number

    hint = f"a number from {least:g} to {most:g}"
    return Parameter(name=name, attribute=attribute, read=read, write=plainly, hint=hint)


def _pasted(text: str) -> str:
    try:
        return unpacked(text)[0]
    except PromptRefused as error:
        raise ValueError(text) from error


_PARAMETERS = (
    Parameter(name="model", attribute="model", read=line, hint="the name of a model"),
    matching("revision", r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}", "a branch, tag or commit"),
    Parameter(
        name="config",
        attribute="pasted",
        read=_pasted,
        write=lambda text: packed((text,)) or "",
        hint="a pasted configuration",
    ),
    Parameter(name="device", attribute="device", read=line, hint="the name of a device"),
    amount("memory", "memory_gib", 1e6, least=0.001),
    amount("bandwidth", "bandwidth_gb_s", 1e6, least=0.001),
    amount("tflops", "tflops", 1e7, least=0.001),
    amount("reserve", "reserve_gib", 1e6),
    choice("dtype", DTYPES),
    matching("backend", r"[a-z][a-z0-9_]{0,40}", "the name of a backend"),
    choice("phase", PHASES),
    whole("batch", MOST_SEQUENCES),
    whole("length", LONGEST),
    switch("all_logits"),
    whole("page", LARGEST_PAGE, least=0),
    choice("optimizer", OPTIMIZERS),
    switch("checkpointing"),
    amount("price", "price", 1e6),
    matching("check", r"[0-9a-f]{32}", "a check's id"),
)
