"""What is asked of a measurement, and the record of it before there is a figure in it."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from attnscope.models.loading import LoadedModel
from attnscope.profiling.latency import Effort
from attnscope.profiling.machine import machine_of
from attnscope.profiling.record import (
    Cell,
    Failure,
    ModelUsed,
    Pairs,
    Prediction,
    RunRecord,
    Telemetry,
    cell_key,
    now,
)

FILLED_BY = "tiled"
"""The backend that reads the prompt before decode is measured: it takes every call on every device,
where the one that is measured may take single queries only."""

_VOLATILE = (
    "_name_or_path",
    "transformers_version",
    "_attn_implementation",
    "torch_dtype",
    "dtype",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruments:
    """What is measured, and how hard.

    Attributes:
        effort: Of the latency.
        cold: Whether the device's cache is overwritten before every timed run.
        judge: Whether the attention is held against float64; a wrong one gets no figures.
        parts: Whether modules are timed.
        timeline: Whether memory is told apart by kind.
        sampler_hz: Samples a second of the device; None for no sampler.
        trace_to: Where the Chrome trace is written, see `trace.trace`; None for no file.
        snapshot_to: Where PyTorch's own memory snapshot is written on CUDA, see
            `trace.write_memory_snapshot`; None for no file.
    """

    effort: Effort = field(default_factory=Effort)
    cold: bool = False
    judge: bool = True
    parts: bool = True
    timeline: bool = True
    sampler_hz: float | None = 10.0
    trace_to: Path | None = None
    snapshot_to: Path | None = None


def unmeasured(
    model: LoadedModel,
    cell: Cell,
    failure: Failure,
    *,
    instruments: Instruments,
    predicted_bytes: int | None = None,
    prediction: Prediction | None = None,
    seed: int = 0,
) -> RunRecord:
    """The record of a cell that was not run; the rest as for `measure`."""
    empty = blank(model, cell, instruments, predicted_bytes, seed)
    return replace(empty, prediction=prediction, failure=failure)


def key_of(model: LoadedModel, cell: Cell, instruments: Instruments, seed: int) -> str:
    """The `RunRecord.key` that measuring this would give."""
    machine = machine_of(model.device)
    return cell_key(model_used(model), machine, cell, _parameters(cell, instruments), seed)


def model_used(model: LoadedModel) -> ModelUsed:
    """Which model this is, for a record."""
    config = model.model.config
    return ModelUsed(
        source=model.source,
        revision=model.revision,
        title=model.title,
        architecture=str(config.model_type),
        config_hash=hash_of(config.to_dict()),
        parameters=model.parameters,
        weight_bytes=model.nbytes,
    )


def hash_of(config: Mapping[str, Any]) -> str:
    """`ModelUsed.config_hash` of a whole configuration, whether or not its model is loaded."""
    told = {name: value for name, value in config.items() if name not in _VOLATILE}
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


def blank(
    model: LoadedModel,
    cell: Cell,
    chosen: Instruments,
    predicted_bytes: int | None,
    seed: int,
) -> RunRecord:
    """The record before there is a figure in it."""
    return RunRecord(
        created=now(),
        model=model_used(model),
        cell=cell,
        parameters=_parameters(cell, chosen),
        seed=seed,
        machine=machine_of(model.device),
        predicted_bytes=predicted_bytes,
        timing=None,
        peak=None,
        energy=None,
        parts=None,
        timeline=None,
        kernels=(),
        attention=None,
        exactness=None,
        telemetry=Telemetry(samples=(), missing=(), load_before=os.getloadavg()[0]),
        failure=None,
    )


def _parameters(cell: Cell, chosen: Instruments) -> Pairs:
    """How a cell is measured; where its trace goes is none of it."""
    effort = chosen.effort
    set_to: dict[str, object] = {
        f"effort.{name}": getattr(effort, name) for name in effort.__slots__
    }
    set_to |= {
        "cache": "cold" if chosen.cold else "hot",
        "instruments": " ".join(
            name for name in ("judge", "parts", "timeline") if getattr(chosen, name)
        ),
        "sampler_hz": chosen.sampler_hz,
    }
    if cell.phase == "decode":
        set_to["cache_filled_by"] = FILLED_BY
    return tuple((name, str(value)) for name, value in set_to.items())
