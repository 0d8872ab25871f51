"""`attnscope profile`: a sweep over backends, lengths and batches, planned first, as records and as tables.

Nothing is imported here that a machine with a GPU may lack: rich is used where it is installed.
"""

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnscope.app.commands.runs import open_history
from attnscope.app.commands.table import rich_modules, say_table
from attnscope.kernels.errors import AttnscopeError, HistoryUnavailable, InvalidCall, JobCancelled
from attnscope.profiling.units import count, latency, nbytes, seconds

if TYPE_CHECKING:
    from attnscope.models.loading import LoadedModel
    from attnscope.profiling.asked import Instruments
    from attnscope.profiling.record import Cell, RunRecord
    from attnscope.profiling.sweep import Planned, Progress

HEADER = (
    "backend",
    "phase",
    "batch",
    "tokens",
    "median",
    "p10 - p90",
    "tokens/s",
    "peak memory",
    "kernel that ran",
    "to know",
)
"""Of the columns of `rows_of`."""

_NUMBERS, _PREDICTED_NUMBERS = range(2, 8), (2, 3, *range(5, 11))
_QUIET = {"KINETO_LOG_LEVEL": "6", "TORCH_CPP_LOG_LEVEL": "ERROR"}
"""PyTorch's profiler says when it starts and stops, in the midst of a progress bar."""


def add_profile(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("--model", default="demo", help="demo, a hub id, or a folder")
    parser.add_argument("--revision", help="branch, tag or commit of a hub model")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:0 (default: auto)")
    parser.add_argument(
        "--backends", default="eager,sdpa_flash,tiled", help="names, comma separated"
    )
    parser.add_argument("--lengths", default="128,512", help="tokens, comma separated")
    parser.add_argument("--batches", default="1", help="sequences, comma separated")
    parser.add_argument("--dtypes", default="auto", help="auto, float32, bfloat16, float16")
    parser.add_argument(
        "--phase", default="prefill,decode", help="prefill, decode, or prefill,decode"
    )
    parser.add_argument(
        "--out", type=Path, help="append records to this JSON Lines file; cells in it are not rerun"
    )
    parser.add_argument("--html", type=Path, help="write a report that opens offline")
    parser.add_argument("--trace", type=Path, help="write a trace for Perfetto of each cell there")
    parser.add_argument(
        "--budget", type=float, help="seconds to time one cell at most (default: no limit)"
    )
    parser.add_argument("--cold", action="store_true", help="clear the cache before every run")
    parser.add_argument("--seed", type=int, default=0, help="of tokens and order (default: 0)")
    parser.add_argument(
        "--force", action="store_true", help="run also what is predicted not to fit the memory"
    )
    parser.add_argument(
        "--no-save", action="store_true", help="leave these runs out of the history"
    )
    parser.set_defaults(run=run_profile)


def run_profile(given: argparse.Namespace) -> None:
    """Measures what was asked for and prints the table.

    Raises:
        AttnscopeError: Nothing could be measured; says why.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if given.trace is not None:
        given.trace.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, _history(given) as keep:
        out = given.out or Path(folder) / "run.jsonl"
        records = _records(given, out, keep)
    _say_table(records)
    _say_predicted(records)
    if given.html is not None:
        from attnscope.app.files.profile_report import write_report

        write_report(records, given.html)
        sys.stdout.write(f"wrote {given.html}\n")
    failed = [record.failure for record in records if record.failure is not None]
    if len(failed) == len(records):
        raise AttnscopeError(f"Nothing could be measured: {failed[0].reason}", failed[0].remedy)


@contextmanager
def _history(given: argparse.Namespace) -> Iterator[Callable[["RunRecord"], object]]:
    """What keeps each record as it comes; a history that cannot be opened ends this before it measures."""
    if given.no_save:
        yield lambda record: None
        return
    try:
        store = open_history()
    except HistoryUnavailable as error:
        raise HistoryUnavailable(
            error.message, f"{error.remedy} Or use --no-save to measure without it."
        ) from error
    except ImportError as error:
        # A GPU machine may hold no more than measuring needs.
        _tell(
            f"attnscope: {error.name} is not installed, so these runs are not kept in the history. "
            "Use --out, and attnscope runs import where it is."
        )
        yield lambda record: None
        return
    with store:
        yield store.add


def _records(
    given: argparse.Namespace, out: Path, keep: Callable[["RunRecord"], object]
) -> list["RunRecord"]:
    from attnscope.models.loading import load
    from attnscope.profiling.measure import check_one_text

    records: list[RunRecord] = []
    try:
        for dtype in _words(given.dtypes):
            model = load(given.model, revision=given.revision, device=given.device, dtype=dtype)
            check_one_text(model)
            records += _sweep(given, model, out, keep)
    except KeyboardInterrupt:
        where = f"What was measured is in {out}: the same command goes on from there."
        raise JobCancelled(
            "Interrupted.", where if given.out else "Use --out to go on from where it stopped."
        ) from None
    return records


def _sweep(
    given: argparse.Namespace,
    model: "LoadedModel",
    out: Path,
    keep: Callable[["RunRecord"], object],
) -> list["RunRecord"]:
    from attnscope.app.commands.profile_plan import planned
    from attnscope.profiling.asked import key_of, unmeasured
    from attnscope.profiling.measure import measure
    from attnscope.profiling.sweep import sweep

    cells = planned(
        given,
        model,
        backends=_words(given.backends),
        lengths=_numbers(given.lengths, "--lengths"),
        batches=_numbers(given.batches, "--batches"),
        phases=_phases(given.phase),
    )

    def key(cell: "Cell") -> str:
        return key_of(model, cell, _instruments(given, model, cell), given.seed)

    def one(each: "Planned") -> "RunRecord":
        asked: dict[str, Any] = {
            "instruments": _instruments(given, model, each.cell),
            "predicted_bytes": each.predicted_bytes,
            "prediction": each.prediction,
            "seed": given.seed,
        }
        if each.skip is not None:
            return unmeasured(model, each.cell, each.skip, **asked)
        return measure(model, each.cell, **asked)

    records = []
    with _progress(model.title) as report:
        for record in sweep(cells, key, one, out, report=report):
            keep(record)
            records.append(record)
    return records


def _instruments(given: argparse.Namespace, model: "LoadedModel", cell: "Cell") -> "Instruments":
    from attnscope.profiling.asked import Instruments
    from attnscope.profiling.latency import Effort

    trace_to = None
    if given.trace is not None:
        title = re.sub(r"[^A-Za-z0-9.-]+", "-", model.title)
        named = (title, cell.backend, cell.phase, f"{cell.batch}x{cell.length}", cell.dtype)
        trace_to = given.trace / f"{'_'.join(named)}.json.gz"
    return Instruments(effort=Effort(budget_s=given.budget), cold=given.cold, trace_to=trace_to)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(text: str, option: str) -> list[int]:
    try:
        return [int(word) for word in _words(text)]
    except ValueError as error:
        raise InvalidCall(
            f"{option} takes whole numbers, not {text!r}.", f"Such as {option} 128,512."
        ) from error


def _phases(text: str) -> list[Any]:
    phases = _words(text)
    wrong = [phase for phase in phases if phase not in ("prefill", "decode")]
    if wrong:
        raise InvalidCall(
            f"There is no phase {wrong[0]!r}.", "Use prefill, decode, or prefill,decode."
        )
    return phases


@contextmanager
def _progress(title: str) -> Iterator[Callable[["Progress"], None]]:
    """Tells on standard error how far a sweep is: a bar where rich is installed, else a line a cell."""
    rich = rich_modules("progress", "console")
    if rich is None:
        yield lambda progress: _tell(f"{title}: {_state(progress)}")
        return
    bars, consoles = rich
    columns = (bars.TextColumn("{task.description}"), bars.BarColumn())
    columns += (bars.TextColumn("{task.fields[state]}"),)
    with bars.Progress(*columns, console=consoles.Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None, state="")

        def report(progress: "Progress") -> None:
            bar.update(task, completed=progress.done, total=progress.total, state=_state(progress))

        yield report


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _state(progress: "Progress") -> str:
    """How far, what now, and how long yet."""
    parts = [f"{progress.done} of {progress.total}"]
    if progress.now is not None:
        cell = progress.now
        parts.append(f"{cell.backend} {cell.phase} {cell.batch} by {count(cell.length)}")
    if progress.remaining_s:
        parts.append(f"{seconds(progress.remaining_s)} left")
    return ", ".join(parts)


def rows_of(records: list["RunRecord"]) -> list[tuple[str, ...]]:
    """The records as text, a row each, in the columns of the table."""
    return [_row(record) for record in records]


def _row(record: "RunRecord") -> tuple[str, ...]:
    cell = record.cell
    which = (cell.backend, cell.phase, count(cell.batch), count(cell.length))
    timing, peak = record.timing, record.peak
    if timing is None or peak is None:
        failure = record.failure
        words = "" if failure is None else f"{failure.outcome.replace('_', ' ')}: {failure.reason}"
        return (*which, "-", "-", "-", "-", "-", words)
    allocated = peak.allocated.value
    ran = record.attention
    return (
        *which,
        latency(timing.median_s),
        f"{latency(timing.p10_s)} - {latency(timing.p90_s)}",
        count(round(record.tokens_per_s or 0)),
        peak.allocated.reason if allocated is None else nbytes(allocated),
        "-" if ran is None else ran.paths,
        "; ".join(record.flags),
    )


def _say_table(records: list["RunRecord"]) -> None:
    model, machine = records[0].model, records[0].machine
    dtypes = ", ".join(dict.fromkeys(record.cell.dtype for record in records))
    title = f"{model.title} in {dtypes} on {machine.name}"
    say_table(title, HEADER, rows_of(records), right=_NUMBERS)


def _say_predicted(records: list["RunRecord"]) -> None:
    """What was predicted beside what was measured, where anything was."""
    from attnscope.app.jobs.profile_records import described
    from attnscope.app.words.profile import PREDICTED, predicted

    rows = predicted([described(record) for record in records])
    if rows:
        say_table("\nPredicted beside measured", PREDICTED, rows, right=_PREDICTED_NUMBERS)
