"""The plan of `attnscope profile`: what each cell is predicted to take, said before the first of them runs."""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from attnscope.app.commands.table import say_table
from attnscope.app.settings import Settings
from attnscope.kernels.errors import ModelError
from attnscope.profiling.units import count, latency, nbytes

if TYPE_CHECKING:
    import torch

    from attnscope.models.loading import LoadedModel
    from attnscope.models.shape import ModelShape
    from attnscope.profiling.prediction import Roof
    from attnscope.profiling.record import Cell, Phase, Prediction
    from attnscope.profiling.sweep import Planned

HEADER = ("backend", "phase", "batch", "tokens", "peak predicted", "least time", "to know")
"""Of the columns of `rows_of`."""


def planned(
    given: argparse.Namespace,
    model: "LoadedModel",
    *,
    backends: Sequence[str],
    lengths: Sequence[int],
    batches: Sequence[int],
    phases: "Sequence[Phase]",
) -> "tuple[Planned, ...]":
    """The cells of a loaded model in the order in which they run, told on standard error.

    The first plan of a device measures what that can do at most, which takes some seconds.

    Args:
        given: The command's options, for seed and force.
        model: In the dtype of the cells.
        backends: See `sweep.plan`, as for all that follow.
        lengths: Tokens.
        batches: Sequences.
        phases: Of generation.

    Raises:
        AttnscopeError: No such backend, or nothing to measure.
    """
    from attnscope.app.jobs.profile_plan import refusal_of
    from attnscope.models.memory import available_bytes
    from attnscope.profiling.prediction import predicted, predicted_bytes
    from attnscope.profiling.sweep import plan

    dtype = str(model.dtype).removeprefix("torch.")
    shape, roof = _shape_of(model), _roof_of(model.device, dtype)

    def predict(cell: "Cell") -> int | None:
        return None if shape is None else predicted_bytes(shape, cell)

    def predict_time(cell: "Cell") -> "Prediction | None":
        return None if shape is None or roof is None else predicted(shape, cell, roof)

    # What the weights take is taken already.
    room = available_bytes(model.device) + model.nbytes
    cells = plan(
        backends=backends,
        lengths=lengths,
        batches=batches,
        dtypes=(dtype,),
        phases=phases,
        predict=predict,
        predict_time=predict_time,
        memory_bytes=None if given.force else room,
        seed=given.seed,
    )
    refusals = [
        "" if shape is None else refusal_of(each.cell, shape, model.device) for each in cells
    ]
    at = "" if roof is None else f"; least times at ceilings {roof.told}"
    title = f"Planned of {model.title} on {model.device}, {nbytes(room)} for it{at}"
    say_table(title, HEADER, rows_of(cells, refusals), right=range(2, 6), to=sys.stderr)
    skipped = sum(each.skip is not None for each in cells)
    if skipped:
        sys.stderr.write(f"{skipped} of {len(cells)} cells are skipped; --force runs them too.\n")
    return cells


def rows_of(cells: "Sequence[Planned]", refusals: Sequence[str]) -> list[tuple[str, ...]]:
    """The cells as text, a row each, in the columns of the table.

    Args:
        cells: The plan.
        refusals: Of each, why its backend will refuse it; empty where it takes it.
    """
    return [
        (
            *(each.cell.backend, each.cell.phase, count(each.cell.batch), count(each.cell.length)),
            "-" if each.predicted_bytes is None else nbytes(each.predicted_bytes),
            "-" if each.prediction is None else latency(each.prediction.seconds),
            f"skipped: {each.skip.reason}" if each.skip else refusal and f"refused: {refusal}",
        )
        for each, refusal in zip(cells, refusals, strict=True)
    ]


def _shape_of(model: "LoadedModel") -> "ModelShape | None":
    from attnscope.models.shape import shape_of

    try:
        return shape_of(model.model.config)
    except ModelError as error:
        sys.stderr.write(f"attnscope: nothing is predicted of {model.title}: {error}\n")
        return None


def _roof_of(device: "torch.device", dtype: str) -> "Roof | None":
    from attnscope.profiling.ceilings import keep_ceilings, kept_ceilings, measure_ceilings
    from attnscope.profiling.prediction import roof_of

    folder = Settings.from_environment().ceilings_folder
    if kept_ceilings(device, folder) is None:
        sys.stderr.write(f"Measuring what {device} can do at most, once\n")
        keep_ceilings(measure_ceilings(device), folder)
    return roof_of(device, dtype, folder)
