"""Many cells measured one after the other: planned first, written down one by one, resumed at will.

A plan holds no tensor. Each cell's record is a line of a JSON Lines file as soon as it is there, so that
a sweep that was interrupted goes on where it stopped: cells are known by what they ask (`record.cell_key`).
"""

import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TypeVar

from attnscope.kernels import registry
from attnscope.kernels.errors import InvalidCall, RecordUnreadable
from attnscope.profiling.record import Cell, Failure, Phase, Prediction, RunRecord
from attnscope.profiling.units import nbytes

Predict = Callable[[Cell], int | None]
"""Peak memory of a cell in bytes, its weights included; None where nobody can tell."""

T = TypeVar("T")

FITS = 0.9
"""Of the memory there is, the share that a cell may be predicted to take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One cell of a plan.

    Attributes:
        cell: What is to be measured.
        predicted_bytes: Peak memory; None where nobody predicted it.
        prediction: Of the time, likewise.
        skip: Why it will not be run; None where it will.
    """

    cell: Cell
    predicted_bytes: int | None
    prediction: Prediction | None = None
    skip: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a sweep is.

    Attributes:
        done: Cells that have their record, those of an earlier run included.
        total: Cells of the plan.
        now: The cell that comes next; None at the end.
        cells_per_s: Of this run; None before its first record.
        remaining_s: Expected, at that rate; None likewise.
    """

    done: int
    total: int
    now: Cell | None
    cells_per_s: float | None
    remaining_s: float | None


def plan(
    *,
    backends: Sequence[str],
    lengths: Sequence[int],
    batches: Sequence[int] = (1,),
    dtypes: Sequence[str] = ("float32",),
    phases: Sequence[Phase] = ("prefill",),
    predict: Predict | None = None,
    predict_time: Callable[[Cell], Prediction | None] | None = None,
    memory_bytes: int | None = None,
    seed: int = 0,
) -> tuple[Planned, ...]:
    """The cells of a sweep, in the order in which they will run.

    Dtypes are kept together, since each is a model of its own; small cells come first, so that figures
    appear soon; and backends of one shape follow each other in an order that is drawn anew for each,
    so that none of them always runs on a warmer machine.

    Args:
        backends: Names of `kernels.registry`.
        lengths: Tokens.
        batches: Sequences.
        dtypes: See `Cell`.
        phases: Of generation.
        predict: Peak memory of a cell.
        predict_time: And its time.
        memory_bytes: What there is; a cell predicted to take more than `FITS` of it is skipped. None
            runs everything.
        seed: Of the order.

    Raises:
        UnknownBackend: No such backend.
        InvalidCall: Nothing to measure, or a number below 1.
    """
    for name in backends:
        registry.backend(name)
    for what, numbers in (("length", lengths), ("batch", batches)):
        wrong = [number for number in numbers if number < 1]
        if wrong:
            raise InvalidCall(f"A {what} must be at least 1, got {wrong[0]}.")
    draw = random.Random(seed)
    cells = []
    shapes = product(_once(dtypes), sorted(_once(lengths)), sorted(_once(batches)), _once(phases))
    for dtype, length, batch, phase in shapes:
        order = _once(backends)
        draw.shuffle(order)
        cells += [
            Cell(backend=backend, phase=phase, batch=batch, length=length, dtype=dtype)
            for backend in order
        ]
    if not cells:
        raise InvalidCall(
            "There is nothing to measure.",
            "Name a backend, a length, a batch, a dtype and a phase.",
        )
    found = (_planned(cell, predict, memory_bytes) for cell in cells)
    if predict_time is None:
        return tuple(found)
    return tuple(replace(each, prediction=predict_time(each.cell)) for each in found)


def sweep(
    planned: Iterable[Planned],
    key: Callable[[Cell], str],
    measure: Callable[[Planned], RunRecord],
    out: Path,
    *,
    report: Callable[[Progress], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[RunRecord]:
    """Measures the cells that have no record yet, and yields every record of the plan in its order.

    Args:
        planned: The plan.
        key: The `RunRecord.key` that measuring a cell will give: a file may hold records of other
            models, or of cells that were measured otherwise.
        measure: Makes the record of a cell; also of one that is to be skipped, see
            `asked.unmeasured`. It is not called for one that is known, unless that was skipped
            and no longer is.
        out: JSON Lines, made where it is missing; a line cut short by a crash is removed.
        report: Told how far it is before every cell and at the end; what it raises ends the sweep.
        clock: Seconds, for the rate.

    Raises:
        RecordUnreadable: The file holds a line that is no record.
    """
    cells = tuple(planned)
    known = {record.key: record for record in read_records(out)}
    pace = _Pace(total=len(cells), report=report or _silent, clock=clock, began=clock())
    for each in cells:
        record = known.get(key(each.cell))
        if record is None or (_was_skipped(record) and each.skip is None):
            pace.tell(each.cell)
            record = measure(each)
            _append(record, out)
            pace.measured += 1
        pace.done += 1
        yield record
    pace.tell(None)


def read_records(path: Path, *, mend: bool = True) -> tuple[RunRecord, ...]:
    """The records of a JSON Lines file; none where there is no file.

    Args:
        path: The file.
        mend: Remove a last line without its end, which was cut short while it was written; else
            only leave it out, as who reads beside a writer must.

    Raises:
        RecordUnreadable: A whole line is no record; says which.
    """
    if not path.exists():
        return ()
    content = path.read_bytes()
    whole, _, rest = content.rpartition(b"\n")
    if rest and mend:
        os.truncate(path, len(content) - len(rest))
    records = []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            records.append(RunRecord.from_json(line.decode()))
        except (RecordUnreadable, UnicodeDecodeError) as error:
            raise RecordUnreadable(
                f"Line {number} of {path}: {error}", "Remove that line, or write to another file."
            ) from error
    return tuple(records)


@dataclass(slots=True, kw_only=True)
class _Pace:
    """Counts, and tells how long it will take."""

    total: int
    report: Callable[[Progress], None]
    clock: Callable[[], float]
    began: float
    done: int = 0
    measured: int = 0

    def tell(self, now: Cell | None) -> None:
        """Reports how far it is."""
        passed = self.clock() - self.began
        rate = self.measured / passed if self.measured and passed > 0 else None
        self.report(
            Progress(
                done=self.done,
                total=self.total,
                now=now,
                cells_per_s=rate,
                remaining_s=None if rate is None else (self.total - self.done) / rate,
            )
        )


def _planned(cell: Cell, predict: Predict | None, memory_bytes: int | None) -> Planned:
    predicted = None if predict is None else predict(cell)
    if predicted is None or memory_bytes is None or predicted <= FITS * memory_bytes:
        return Planned(cell=cell, predicted_bytes=predicted)
    reason = (
        f"predicted to need {nbytes(predicted)}, more than {FITS:.0%} of the "
        f"{nbytes(memory_bytes)} there is"
    )
    skip = Failure(outcome="skipped", reason=reason, remedy="Ask for it to be run all the same.")
    return Planned(cell=cell, predicted_bytes=predicted, skip=skip)


def _was_skipped(record: RunRecord) -> bool:
    return record.failure is not None and record.failure.outcome == "skipped"


def _append(record: RunRecord, out: Path) -> None:
    """One line, on the disk before the next cell begins."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a", encoding="utf-8") as file:
        file.write(record.to_json() + "\n")
        file.flush()
        os.fsync(file.fileno())


def _once(values: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(values))


def _silent(progress: Progress) -> None:
    del progress
