"""The questions about checks of backends: what can run before anything is run, and what a check found."""

import os
from collections.abc import Iterable
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
    from attnscope.app.jobs.backends_offered import device_of
    from attnscope.app.jobs.work import wanted
    from attnscope.kernels.registry import BACKENDS
    from attnscope.models import configs
    from attnscope.models.checkpoint import reads_pictures
    from attnscope.models.shape import picture_layers, shape_of

    which = wanted(arguments, context)
    device = device_of(which["device"])
    config = configs.read(which["source"], revision=which["revision"])
    of_pictures = reads_pictures(config)
    shape = None if of_pictures else shape_of(config)
    layers = picture_layers(config) if shape is None else shape.layers
    is_swappable = shape is None or shape.is_swappable
    dtype = which["dtype"]
    if dtype == "auto":
        dtype = "float32" if device.type == "cpu" else "bfloat16"
    return {
        "backends": [
            {
                "name": backend.name,
                "title": backend.title,
                "exact": backend.exact,
                **(
                    _refusal(backend, layers, dtype, device)
                    if is_swappable
                    else _own_code(config.model_type)
                ),
            }
            for backend in BACKENDS
        ],
        "layers": len(layers),
        "architecture": config.model_type,
        "max_length": None if shape is None else shape.max_length,
        "reads_pictures": of_pictures,
        "device": str(device),
    }


def _refusal(
    backend: "Backend", layers: "Iterable[LayerShape]", dtype: str, device: "torch.device"
) -> dict[str, str]:
    from attnscope.profiling.attention_memory import call_of

    for layer in dict.fromkeys(layer for layer in layers if layer.is_attention):
        call = call_of(layer, batch=1, length=_LENGTH, dtype=dtype, decode=False)
        refusal = backend.refuses(call, device)
        if refusal is not None:
            return {"reason": refusal.reason, "remedy": refusal.remedy}
    return {"reason": "", "remedy": ""}


def _own_code(architecture: str) -> dict[str, str]:
    reason = f"{architecture} computes attention in code of its own"
    return {"reason": reason, "remedy": "Choose another model."}


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
