"""The cells of a profile before it starts: what each is predicted to take, and which cannot run here."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from attnscope.app.jobs.backends_offered import device_of
from attnscope.app.jobs.context import Context
from attnscope.app.jobs.work import models, wanted
from attnscope.kernels import registry
from attnscope.kernels.errors import PromptRefused
from attnscope.models.memory import available_bytes
from attnscope.models.shape import ModelShape, shape_of
from attnscope.profiling.attention_memory import call_of
from attnscope.profiling.cache_growth import cache_growth
from attnscope.profiling.measure import check_one_stack
from attnscope.profiling.prediction import Roof, predicted, predicted_bytes, roof_of
from attnscope.profiling.record import Cell, Prediction
from attnscope.profiling.sweep import Planned, plan
from attnscope.profiling.units import count

Arguments = dict[str, Any]


def planned(
    arguments: Arguments, room: int, roofs: Mapping[str, Roof] | None = None
) -> tuple[Planned, ...]:
    """The cells in the order in which they run.

    Args:
        arguments: Of the `profile` job.
        room: Bytes of the device that the model and its run may take.
        roofs: The device's ceilings by dtype, where they are known; without, no time is predicted.

    Raises:
        AttnscopeError: No such model or backend, nothing to measure, or longer than the model reads.
    """
    shape = shape_of(arguments["source"], revision=arguments["revision"])
    check_one_stack(arguments["source"], is_pair=shape.is_encoder_decoder)
    _refuse_lengths(shape, arguments)
    return plan(
        backends=arguments["backends"],
        lengths=arguments["lengths"],
        batches=arguments["batches"],
        dtypes=arguments["dtypes"],
        phases=arguments["phases"],
        predict=lambda cell: predicted_bytes(shape, cell),
        predict_time=lambda cell: _timed(shape, cell, roofs or {}),
        memory_bytes=None if arguments["force"] else room,
    )


def profile_plan(arguments: Arguments, context: Context) -> dict[str, Any]:
    """The plan as the page shows it, before a weight is loaded.

    Returns:
        The cells, each with `predicted_bytes` and `predicted_s` (None where nobody can tell), `skip` and `refusal`
        (empty where it runs), `room_bytes`, what the device has for them and the weights, and the `roofs` behind the
        times, by dtype.
    """
    which = wanted(arguments, context)
    shape = shape_of(arguments["source"], revision=arguments["revision"])
    device = device_of(which["device"])
    room = available_bytes(device) + _held_bytes(which, context)
    roofs = roofs_of(device, arguments["dtypes"], context)
    return {
        "architecture": shape.architecture,
        "layers": len(shape.layers),
        "parameters": shape.parameters,
        "max_length": shape.max_length,
        "device": str(device),
        "room_bytes": room,
        "roofs": {dtype: asdict(roof) for dtype, roof in roofs.items()},
        "cells": [_told(each, shape, device) for each in planned(arguments, room, roofs)],
    }


def cache_told(arguments: Arguments) -> dict[str, Any] | None:
    """How the cache of the plan's largest batch grows up to its longest; None of a model that keeps none."""
    shape = shape_of(arguments["source"], revision=arguments["revision"])
    if not shape.has_cache:
        return None
    longest, batch = max(arguments["lengths"]) + 1, max(arguments["batches"])
    found = cache_growth(shape, longest=longest, batch=batch, dtype=arguments["dtypes"][0])
    return asdict(found)


def roofs_of(device: torch.device, dtypes: Sequence[str], context: Context) -> dict[str, Roof]:
    """The ceilings of a device by dtype; those that nobody knows are left out."""
    folder = context.settings.ceilings_folder
    found = {dtype: roof_of(device, dtype, folder) for dtype in dtypes}
    return {dtype: roof for dtype, roof in found.items() if roof is not None}


def _told(each: Planned, shape: ModelShape, device: torch.device) -> dict[str, Any]:
    cell = each.cell
    return {
        "backend": cell.backend,
        "phase": cell.phase,
        "batch": cell.batch,
        "length": cell.length,
        "dtype": cell.dtype,
        "predicted_bytes": each.predicted_bytes,
        "predicted_s": None if each.prediction is None else each.prediction.seconds,
        "skip": "" if each.skip is None else each.skip.reason,
        "refusal": refusal_of(cell, shape, device),
    }


def _timed(shape: ModelShape, cell: Cell, roofs: Mapping[str, Roof]) -> Prediction | None:
    roof = roofs.get(cell.dtype)
    return None if roof is None else predicted(shape, cell, roof)


def refusal_of(cell: Cell, shape: ModelShape, device: torch.device) -> str:
    """Why the backend will refuse the cell, as the first layer that it refuses says it; empty where it takes it."""
    if not shape.is_swappable:
        return f"{shape.architecture} computes attention in code of its own; no backend can be chosen for it"
    if cell.phase == "decode" and not shape.has_cache:
        return f"{shape.architecture} keeps no cache, so it has no decode phase"
    backend = registry.backend(cell.backend)
    for layer in dict.fromkeys(layer for layer in shape.layers if layer.is_attention):
        call = call_of(
            layer,
            batch=cell.batch,
            length=cell.keys,
            dtype=cell.dtype,
            decode=cell.phase == "decode",
        )
        refusal = backend.refuses(call, device)
        if refusal is not None:
            return f"{refusal.reason}. {refusal.remedy}".strip()
    return ""


def _refuse_lengths(shape: ModelShape, arguments: Arguments) -> None:
    most = shape.max_length
    longest = max(arguments["lengths"], default=0) + ("decode" in arguments["phases"])
    if most is not None and longest > most:
        new = ", the token to decode included" if "decode" in arguments["phases"] else ""
        raise PromptRefused(
            f"The model reads {count(most)} tokens at most, and {count(longest)} were asked for{new}.",
            "Leave out the longest.",
        )


def _held_bytes(which: dict[str, Any], context: Context) -> int:
    """What this model's weights take already, in whichever dtype: they are no less room for it."""
    return max(
        (
            held.nbytes
            for held in models(context).held
            if held.key[:3] == (which["source"], which["revision"], which["device"])
        ),
        default=0,
    )
