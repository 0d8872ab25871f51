"""The questions about checks of backends: what can run before anything is run, and what a check found."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attnscope.app.jobs.checks import CheckFolder
from attnscope.app.jobs.context import Context
from attnscope.app.jobs.tables import Ask

if TYPE_CHECKING:
    import torch

    from attnscope.kernels.backends.backend import Backend
    from attnscope.models.shape import LayerShape

Answer = dict[str, Any]
Arguments = dict[str, Any]

_LENGTH = 128  # tokens of the prompt that is asked about; no refusal on a device here turns on it


def offered(arguments: Arguments, context: Context) -> Answer:
    """Every backend, and why it refuses the attention calls of a model on this device: no weight is loaded.

    Args:
        arguments: source, revision, device, dtype as for `load`.
        context: Names the device.

    Returns:
        Under `backends` name, title, exact, reason and remedy (empty where it runs); and layers, architecture,
        max_length and reads_pictures of the model, and the device.
    """
    from attnscope.kernels.registry import BACKENDS

    asked = asked_about(arguments, context)
    return {
        "backends": [
            {
                "name": backend.name,
                "title": backend.title,
                "exact": backend.exact,
                **refusal_of(backend, asked),
            }
            for backend in BACKENDS
        ],
        "layers": len(asked.layers),
        "architecture": asked.architecture,
        "max_length": asked.max_length,
        "reads_pictures": asked.reads_pictures,
        "device": str(asked.device),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedAbout:
    """A model that `load` would open, as its configuration tells it, and where it would run.

    Attributes:
        architecture: Its model type.
        layers: With their heads.
        is_swappable: Whether backends can run in it.
        max_length: Tokens it reads at most; None where nothing says, and of pictures.
        reads_pictures: Whether it does.
        device: Where.
        dtype: In which.
    """

    architecture: str
    layers: "tuple[LayerShape, ...]"
    is_swappable: bool
    max_length: int | None
    reads_pictures: bool
    device: "torch.device"
    dtype: str


def asked_about(arguments: Arguments, context: Context) -> AskedAbout:
    """What `load` would open with these arguments: source, revision, device, dtype."""
    from attnscope.app.jobs.backends_offered import device_of
    from attnscope.app.jobs.work import wanted
    from attnscope.models import configs
    from attnscope.models.checkpoint import reads_pictures
    from attnscope.models.shape import picture_layers, shape_of

    which = wanted(arguments, context)
    device, dtype = device_of(which["device"]), which["dtype"]
    config = configs.read(which["source"], revision=which["revision"])
    shape = None if reads_pictures(config) else shape_of(config)
    if dtype == "auto":
        dtype = "float32" if device.type == "cpu" else "bfloat16"
    return AskedAbout(
        architecture=config.model_type,
        layers=picture_layers(config) if shape is None else shape.layers,
        is_swappable=shape is None or shape.is_swappable,
        max_length=None if shape is None else shape.max_length,
        reads_pictures=shape is None,
        device=device,
        dtype=dtype,
    )


def refusal_of(backend: "Backend", asked: AskedAbout, *, decode: bool = False) -> dict[str, str]:
    """Why a backend refuses a model's prompt, or its next token, as reason and remedy; empty where it runs."""
    from attnscope.profiling.attention_memory import call_of

    if not asked.is_swappable:
        reason = f"{asked.architecture} computes attention in code of its own"
        return {"reason": reason, "remedy": "Choose another model."}
    for layer in dict.fromkeys(layer for layer in asked.layers if layer.is_attention):
        call = call_of(layer, batch=1, length=_LENGTH, dtype=asked.dtype, decode=decode)
        refusal = backend.refuses(call, asked.device)
        if refusal is not None:
            return {"reason": refusal.reason, "remedy": refusal.remedy}
    return {"reason": "", "remedy": ""}


def found(arguments: Arguments, context: Context) -> Answer:
    """What a check has found until now.

    Args:
        arguments: check, the id.
        context: Names the data folder.

    Returns:
        `asked`, the job's arguments; `facts`, see `check_work`; and `results`, as `words.backends.described` writes.
    """
    from attnscope.app.words.backends import described

    folder = CheckFolder(context.settings.checks_folder, str(arguments["check"]))
    asked, facts = folder.asked(), folder.facts()
    os.utime(folder.path)  # it stays for some time after its last use
    return {"asked": asked, "facts": facts, "results": described(folder.results(), facts["tokens"])}


CHECK_ASKS = {
    "check_offered": Ask(offered, lane="patient", at="worker"),
    "check": Ask(found, lane="patient"),
}
"""Merged into `answers.ASKS`."""
