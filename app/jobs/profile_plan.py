"""The cells of a profile before it starts: what each is predicted to take, and which cannot run here."""

from typing import Any

import torch

from attnscope.app.jobs.backends_offered import device_of
from attnscope.app.jobs.context import Context
from attnscope.app.jobs.work import models, wanted
from attnscope.kernels import registry
from attnscope.kernels.errors import AttnscopeError, PromptRefused
from attnscope.models.memory import available_bytes
from attnscope.models.shape import ModelShape, shape_of
from attnscope.profiling.attention_memory import call_of
from attnscope.profiling.calculator import estimate
from attnscope.profiling.record import Cell
from attnscope.profiling.sweep import Planned, plan
from attnscope.profiling.units import count

Arguments = dict[str, Any]


def planned(arguments: Arguments, room: int) -> tuple[Planned, ...]:
    """The cells in the order in which they run.

    Args:
        arguments: Of the `profile` job.
        room: Bytes of the device that the model and its run may take.

    Raises:
        AttnscopeError: No such model or backend, nothing to measure, or longer than the model reads.
    """
    shape = shape_of(arguments["source"], revision=arguments["revision"])
    _refuse_lengths(shape, arguments)
    return plan(
        backends=arguments["backends"],
        lengths=arguments["lengths"],
        batches=arguments["batches"],
        dtypes=arguments["dtypes"],
        phases=arguments["phases"],
        predict=lambda cell: _predicted(shape, cell),
        memory_bytes=None if arguments["force"] else room,
    )


def profile_plan(arguments: Arguments, context: Context) -> dict[str, Any]:
    """The plan as the page shows it, before a weight is loaded.

    Returns:
        The cells, each with `predicted_bytes` (None where nobody can tell), `skip` and `refusal` (empty where it runs),
        the bytes of the weights, and `room_bytes`, what the device has for them.
    """
    which = wanted(arguments, context)
    shape = shape_of(arguments["source"], revision=arguments["revision"])
    device = device_of(which["device"])
    room = available_bytes(device) + _held_bytes(which, context)
    return {
        "architecture": shape.architecture,
        "layers": len(shape.layers),
        "parameters": shape.parameters,
        "max_length": shape.max_length,
        "device": str(device),
        "room_bytes": room,
        "cells": [_told(each, shape, device) for each in planned(arguments, room)],
    }


def _told(each: Planned, shape: ModelShape, device: torch.device) -> dict[str, Any]:
    cell = each.cell
    return {
        "backend": cell.backend,
        "phase": cell.phase,
        "batch": cell.batch,
        "length": cell.length,
        "dtype": cell.dtype,
        "predicted_bytes": each.predicted_bytes,
        "skip": "" if each.skip is None else each.skip.reason,
        "refusal": _refusal(cell, shape, device),
    }


def _predicted(shape: ModelShape, cell: Cell) -> int | None:
    try:
        return estimate(
            shape,
            backend=cell.backend,
            batch=cell.batch,
            length=_keys(cell),
            dtype=cell.dtype,
            phase=cell.phase,
        ).total_bytes
    except AttnscopeError:
        return None


def _refusal(cell: Cell, shape: ModelShape, device: torch.device) -> str:
    """Why the backend will refuse the cell; the first layer that it refuses says it."""
    if not shape.is_swappable:
        return f"{shape.architecture} computes attention in code of its own; no backend can be chosen for it"
    if cell.phase == "decode" and not shape.has_cache:
        return f"{shape.architecture} keeps no cache, so it has no decode phase"
    backend = registry.backend(cell.backend)
    for layer in dict.fromkeys(layer for layer in shape.layers if layer.is_attention):
        call = call_of(
            layer,
            batch=cell.batch,
            length=_keys(cell),
            dtype=cell.dtype,
            decode=cell.phase == "decode",
        )
        refusal = backend.refuses(call, device)
        if refusal is not None:
            return f"{refusal.reason}. {refusal.remedy}".strip()
    return ""


def _keys(cell: Cell) -> int:
    """Positions in all: in a decoding step, with the new one."""
    return cell.length + (cell.phase == "decode")


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
