"""What a cell will take, said before it runs: its peak memory, and the least time at the ceilings of the device."""

from dataclasses import dataclass
from pathlib import Path

import torch

from attnscope.kernels.errors import AttnscopeError
from attnscope.models.shape import ModelShape
from attnscope.profiling.calculator import estimate
from attnscope.profiling.ceilings import Ceilings, kept_ceilings
from attnscope.profiling.hardware import detected
from attnscope.profiling.plan import Plan
from attnscope.profiling.record import Cell, Prediction
from attnscope.profiling.roofline import work

_WIDEST = 0.2
"""Ceilings of which most runs differ by more were measured on a machine that did something else too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Roof:
    """The two ceilings that hold for a dtype.

    Attributes:
        flops_per_second: Of its matrix products.
        bytes_per_second: Of the device's memory, read and written.
        origin: "measured" on this device, or "listed" by its maker.
        told: Of which device, and when, in words.
    """

    flops_per_second: float
    bytes_per_second: float
    origin: str
    told: str


def roof_of(device: torch.device, dtype: str, folder: Path) -> Roof | None:
    """The measured ceilings where there are some, else the listed ones, else None.

    Args:
        device: Of which.
        dtype: Of the products.
        folder: Where measured ones are kept.
    """
    found = kept_ceilings(device, folder)
    rate = None if found is None else found.product(dtype)
    if found is not None and rate is not None:
        return Roof(
            flops_per_second=rate.per_second,
            bytes_per_second=found.copy.per_second,
            origin="measured",
            told=_told(found, max(rate.spread, found.copy.spread)),
        )
    listed = detected(device)
    if listed is None or dtype not in listed.peak_flops:
        return None
    return Roof(
        flops_per_second=listed.peak_flops[dtype],
        bytes_per_second=listed.bandwidth,
        origin="listed",
        told=f"listed of {listed.name} by its maker",
    )


def _told(found: Ceilings, spread: float) -> str:
    when = found.measured[:16].replace("T", " ")
    words = f"measured on {found.machine.name}, {when} UTC"
    if spread <= _WIDEST:
        return words
    return f"{words}, beside other work: their runs differ by up to {spread:.0%}"


def predicted_bytes(shape: ModelShape, cell: Cell) -> int | None:
    """The peak memory of a cell, its weights included; None where nobody can tell."""
    try:
        return estimate(
            shape,
            backend=cell.backend,
            batch=cell.batch,
            length=cell.keys,
            dtype=cell.dtype,
            phase=cell.phase,
        ).total_bytes
    except AttnscopeError:
        return None


def predicted(shape: ModelShape, cell: Cell, roof: Roof) -> Prediction | None:
    """What a cell computes and moves, and the least time of it; None where nobody can tell."""
    try:
        plan = Plan(
            shape=shape,
            backend=cell.backend,
            batch=cell.batch,
            dtype=cell.dtype,
            phase=cell.phase,
        )
        done = work(plan, cell.keys)
    except AttnscopeError:
        return None
    return Prediction(
        flops=done.flops,
        nbytes=done.nbytes,
        flops_per_second=roof.flops_per_second,
        bytes_per_second=roof.bytes_per_second,
        origin=roof.origin,
    )
