"""A plan measured in the worker, one cell at a time, while who watches is told what happens."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from attnscope.app.commands.profile import rows_of
from attnscope.app.jobs.backends_offered import device_of
from attnscope.app.jobs.ceilings import with_ceilings
from attnscope.app.jobs.context import Context, WorkerSpentError
from attnscope.app.jobs.profile_history import history_of
from attnscope.app.jobs.profile_plan import cache_told, planned, roofs_of
from attnscope.app.jobs.profiles import ProfileFolder, Stream
from attnscope.app.jobs.work import models, wanted
from attnscope.models.memory import available_bytes
from attnscope.profiling.asked import Instruments, key_of, unmeasured
from attnscope.profiling.latency import Effort
from attnscope.profiling.measure import Watcher, measure
from attnscope.profiling.sweep import sweep
from attnscope.profiling.units import count

if TYPE_CHECKING:
    from attnscope.models.loading import LoadedModel
    from attnscope.profiling.record import Cell, RunRecord
    from attnscope.profiling.sources import Sample
    from attnscope.profiling.sweep import Planned, Progress

Arguments = dict[str, Any]

_EVERY_S = 0.1  # between two timed runs, or two samples, that are told
_LOADING = 0.03  # of the whole
_SPENT = "the process that ran out of memory was replaced, so that nothing of it was left to the next cell"


def profile(arguments: Arguments, context: Context) -> dict[str, Any]:
    """Measure every cell of a plan that has no record yet.

    Args:
        arguments: profile (the id of its folder), owner; source, revision, device as for `load`; dtypes, backends,
            lengths, batches, phases; budget_s (seconds to time one cell at most); force (run also what is predicted
            not to fit); traces (keep a Perfetto trace of each cell, and on CUDA a memory snapshot).
        context: Asked between any two runs whether it was cancelled. Every record goes into its settings' history too;
            where that cannot be used, the profile goes on, and its folder says why.

    Returns:
        The profile's id and how many cells have a record.

    Raises:
        WorkerSpentError: A cell ran out of memory: the next goes on with the others, in a process that never met it.
    """
    folder = ProfileFolder(context.settings.profiles_folder, arguments["profile"])
    folder.begin(arguments)
    stream = Stream(folder.live)
    stream.tell("begin")
    cache = cache_told(arguments)
    if cache is not None:
        folder.foretell(cache)
    dtypes, done = arguments["dtypes"], 0
    with_ceilings(device_of(wanted(arguments, context)["device"]), context)
    with history_of(folder, context.settings) as keep:
        for number, dtype in enumerate(dtypes):
            first, last = number / len(dtypes), (number + 1) / len(dtypes)
            ready = first + _LOADING / len(dtypes)
            loading = context.part(first, ready, "Loading the model")
            loading(0.0)
            which = wanted({**arguments, "dtype": dtype}, context)
            with models(context).borrow(**which, progress=loading) as model:
                bench = _Bench(model, arguments, context, folder, stream, ready, last)
                for record in bench.records(dtype):
                    keep(record)
                    done += 1
                    if bench.is_spent:
                        raise WorkerSpentError
    return {"profile": arguments["profile"], "cells": done}


@dataclass(slots=True)
class _Bench:
    """One model on the bench: makes its cells' records, and tells how it goes.

    Attributes:
        first: Share of the job that was done before its first cell.
        last: And after its last.
        is_spent: Whether a cell ran out of memory in this process.
    """

    model: "LoadedModel"
    arguments: Arguments
    context: Context
    folder: ProfileFolder
    stream: Stream
    first: float
    last: float
    share: float = 0.0
    total: float = 1.0
    name: str = ""
    is_spent: bool = False

    def records(self, dtype: str) -> Iterator["RunRecord"]:
        """Every record of the plan in that dtype, the model's; those that are not there yet are made."""
        # What the weights take is taken already.
        room = available_bytes(self.model.device) + self.model.nbytes
        roofs = roofs_of(self.model.device, [dtype], self.context)
        cells = planned({**self.arguments, "dtypes": [dtype]}, room, roofs)
        return sweep(cells, self.key, self.record, self.folder.records, report=self.progress)

    def key(self, cell: "Cell") -> str:
        """By which a sweep knows a cell again."""
        return key_of(self.model, cell, self._instruments(cell), seed=0)

    def record(self, each: "Planned") -> "RunRecord":
        """Measure a cell, or say why not."""
        asked: dict[str, Any] = {
            "instruments": self._instruments(each.cell),
            "predicted_bytes": each.predicted_bytes,
            "prediction": each.prediction,
        }
        if each.skip is not None:
            record = unmeasured(self.model, each.cell, each.skip, **asked)
        else:
            watcher = Watcher(sample=self._sampled, run=self._ran)
            record = measure(self.model, each.cell, report=self._step, watcher=watcher, **asked)
        if record.failure is not None and record.failure.outcome == "out_of_memory":
            self.is_spent = True
            record = replace(record, notes=(*record.notes, _SPENT))
        self.stream.tell("record", row=rows_of([record])[0])
        return record

    def progress(self, told: "Progress") -> None:
        """Before every cell, and at the end."""
        span = self.last - self.first
        self.share, self.total = self.first + span * told.done / told.total, told.total / span
        if told.now is not None:
            cell = told.now
            self.name = f"{cell.backend}, {cell.phase}, {count(cell.batch)} by {count(cell.length)}"
            self.stream.tell("cell", backend=cell.backend)

    def _step(self, step: str) -> None:
        words = f"{self.name}: {step}"
        self.context.progress(self.share, words, total=self.total, unit="cells")

    def _ran(self, taken: float) -> None:
        self.context.check()
        self.stream.note("run", every_s=_EVERY_S, seconds=taken)

    def _sampled(self, sample: "Sample") -> None:
        """On the sampler's thread, which alone writes while latency is timed."""
        self.stream.note(
            "sample",
            every_s=_EVERY_S,
            allocated=self._allocated(),
            process=sample.process_bytes,
            device=sample.device_bytes,
            utilisation=sample.utilisation,
            power=sample.power_w,
            temperature=sample.temperature_c,
        )
        self.stream.flush()

    def _allocated(self) -> int | None:
        device = self.model.device
        return torch.cuda.memory_allocated(device) if device.type == "cuda" else None

    def _instruments(self, cell: "Cell") -> Instruments:
        effort = Effort(budget_s=float(self.arguments["budget_s"]))
        if not self.arguments["traces"]:
            return Instruments(effort=effort)
        self.folder.traces.mkdir(exist_ok=True)
        return Instruments(
            effort=effort,
            trace_to=self.folder.trace(cell),
            snapshot_to=self.folder.snapshot(cell),
        )
