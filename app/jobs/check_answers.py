"""The questions about checks of backends: what can run before anything is run, and what a check found."""

import os
from typing import TYPE_CHECKING, Any

from attnscope.app.jobs.checks import CheckFolder
from attnscope.app.jobs.context import Context
from attnscope.app.jobs.tables import Ask

if TYPE_CHECKING:
    import torch

    from attnscope.kernels.backends.backend import Backend
    from attnscope.models.shape import ModelShape

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
        parameters and max_length of the model, and the device.
    """
    from attnscope.kernels.registry import BACKENDS

    shape, device, dtype = asked_about(arguments, context)
    return {
        "backends": [
            {
                "name": backend.name,
                "title": backend.title,
                "exact": backend.exact,
                **refusal_of(backend, shape, dtype, device),
            }
            for backend in BACKENDS
        ],
        "layers": len(shape.layers),
        "architecture": shape.architecture,
        "parameters": shape.parameters,
        "max_length": shape.max_length,
        "device": str(device),
    }


def asked_about(arguments: Arguments, context: Context) -> "tuple[ModelShape, torch.device, str]":
    """The shape of a model that `load` would open, where it would run, and in which dtype."""
    from attnscope.app.jobs.backends_offered import device_of
    from attnscope.app.jobs.work import wanted
    from attnscope.models.shape import shape_of

    which = wanted(arguments, context)
    device = device_of(which["device"])
    dtype = which["dtype"]
    if dtype == "auto":
        dtype = "float32" if device.type == "cpu" else "bfloat16"
    return shape_of(which["source"], revision=which["revision"]), device, dtype


def refusal_of(
    backend: "Backend",
    shape: "ModelShape",
    dtype: str,
    device: "torch.device",
    *,
    decode: bool = False,
) -> dict[str, str]:
    """Why a backend refuses a model's prompt, or its next token, as reason and remedy; empty where it runs."""
    from attnscope.profiling.attention_memory import call_of

    if not shape.is_swappable:
        reason = f"{shape.architecture} computes attention in code of its own"
        return {"reason": reason, "remedy": "Choose another model."}
    for layer in dict.fromkeys(layer for layer in shape.layers if layer.is_attention):
        call = call_of(layer, batch=1, length=_LENGTH, dtype=dtype, decode=decode)
        refusal = backend.refuses(call, device)
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
