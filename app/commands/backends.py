"""`attnscope backends`: every backend on a prompt, held against float64; no success where one is wrong.

Nothing is imported here that a machine with a GPU may lack: rich is used where it is installed.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attnscope.app.commands.progress import progress
from attnscope.app.commands.prompt import add_prompt, read_by
from attnscope.app.commands.table import say_table
from attnscope.app.words.backends import HEADER, row_of
from attnscope.kernels.errors import AttnscopeError, JobCancelled
from attnscope.profiling.units import count

if TYPE_CHECKING:
    from attnscope.models.loading import LoadedModel
    from attnscope.models.prompting import Batch
    from attnscope.profiling.backend_check import BackendResult

_NUMBERS = range(3, 10)  # columns of the table
_QUIET = {"KINETO_LOG_LEVEL": "6", "TORCH_CPP_LOG_LEVEL": "ERROR"}
"""PyTorch's profiler says when it starts and stops, in the midst of a progress bar."""


def add_backends(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    add_prompt(parser)
    parser.add_argument(
        "--model", default="demo", help="demo, copying, picture-copying, a hub id, or a folder"
    )
    parser.add_argument("--revision", help="branch, tag or commit of a hub model")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:0 (default: auto)")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16")
    parser.add_argument("--backends", help="names, comma separated (default: all)")
    parser.add_argument(
        "--budget", type=float, help="seconds to time all of them at most (default: no limit)"
    )
    parser.add_argument("--json", type=Path, help="write everything that was found into this file")
    parser.set_defaults(run=run_backends)


def run_backends(given: argparse.Namespace) -> None:
    """Checks the backends, prints the table, and writes the file.

    Raises:
        AttnscopeError: A backend is wrong, or nothing could be checked; says which and why.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    from attnscope.models.loading import load
    from attnscope.models.pairs import read_batch

    model = load(given.model, revision=given.revision, device=given.device, dtype=given.dtype)
    batch = read_batch(model, **read_by(model, given))
    results = _checked(given, model, batch)
    baseline = next((each for each in results if each.name == "eager"), None)
    rows = [row_of(each, baseline) for each in results]
    say_table(_title(model, batch), HEADER, rows, right=_NUMBERS)
    for result in results:
        if result.cause is not None:
            cause = result.cause
            sys.stdout.write(
                f"{result.name}, layer {cause.layer}, head {cause.head}: {cause.words}\n"
            )
    if given.json is not None:
        _write(given.json, model, batch, results)
        sys.stdout.write(f"wrote {given.json}\n")
    wrong = [result.name for result in results if result.is_wrong]
    if wrong:
        raise AttnscopeError(
            f"Wrong here: {', '.join(wrong)}.", "Use another backend for this model."
        )
    if all(result.failure for result in results):
        failure = results[0].failure
        assert failure is not None
        raise AttnscopeError(f"Nothing could be checked: {failure.reason}", failure.remedy)


def _checked(
    given: argparse.Namespace, model: "LoadedModel", batch: "Batch"
) -> "Sequence[BackendResult]":
    from attnscope.profiling.backend_check import check
    from attnscope.profiling.latency import Effort

    names = None
    if given.backends is not None:
        names = [name.strip() for name in given.backends.split(",") if name.strip()]
    try:
        with progress(model.title) as report:
            return check(
                model, batch, names=names, effort=Effort(budget_s=given.budget), report=report
            )
    except KeyboardInterrupt:
        raise JobCancelled("Interrupted.") from None


def _title(model: "LoadedModel", batch: "Batch") -> str:
    from attnscope.profiling.machine import machine_of

    dtype = str(model.dtype).removeprefix("torch.")
    what = "place" if batch.is_picture else "token"
    tokens = f"{count(batch.length)} {what}{'s' * (batch.length > 1)}"
    return f"{model.title} in {dtype} on {machine_of(model.device).name}, {tokens}"


def _write(
    path: Path, model: "LoadedModel", batch: "Batch", results: "Sequence[BackendResult]"
) -> None:
    from attnscope.profiling.asked import model_used
    from attnscope.profiling.json_data import to_data
    from attnscope.profiling.machine import machine_of
    from attnscope.profiling.record import now

    found = {
        "created": now(),
        "model": to_data(model_used(model)),
        "dtype": str(model.dtype).removeprefix("torch."),
        "machine": to_data(machine_of(model.device)),
        "token_ids": [list(ids) for ids in batch.ids],
        "results": [to_data(result) for result in results],
    }
    path.write_text(json.dumps(found, allow_nan=False, indent=1) + "\n", encoding="utf-8")
