"""The questions about runs of needles: the grid as far as it is, and one cell of it with where its attention went."""

import os
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from attnscope.app.jobs.context import Context
from attnscope.app.jobs.needles import NeedleFolder
from attnscope.app.jobs.tables import Ask
from attnscope.kernels.errors import InvalidCall

if TYPE_CHECKING:
    import numpy as np

    from attnscope.models.needle_attention import NeedleAttention

Answer = dict[str, Any]
Arguments = dict[str, Any]

_DIGITS = 5


def found(arguments: Arguments, context: Context) -> Answer:
    """What a run has found until now.

    Args:
        arguments: run, the id.
        context: Names the data folder.

    Returns:
        `asked`, the job's arguments; `facts`, see `needle_work`; `trials`, how many are done; `cells`, each with
        length, depth, trials, exact (how many), log_probability, rank, seconds (means); and `heads`, all of them, those
        that copy most first, over the `judged` trials: those answered exactly, or all where none was.
    """
    from attnscope.models.needle_attention import mean_attention, ranked_heads
    from attnscope.profiling.json_data import to_data

    folder = NeedleFolder(context.settings.needles_folder, str(arguments["run"]))
    begun, trials = folder.begun(), list(folder.trials().values())
    os.utime(folder.path)  # it stays for some time after its last use
    judged = [each for each in trials if each["exact"]] or trials
    read = _attentions(judged)
    return {
        **begun,
        "trials": len(trials),
        "cells": cells_of(trials),
        "judged": len(read),
        "heads": [to_data(head) for head in ranked_heads(mean_attention(read))] if read else [],
    }


def cell(arguments: Arguments, context: Context) -> Answer:
    """One cell of a run.

    Args:
        arguments: run, length and depth.
        context: Names the data folder.

    Returns:
        `trials`, as `needle_work.told` writes them, without attention; and `attention`, its mean over them, or None.

    Raises:
        InvalidCall: No trial of that cell is done.
    """
    from attnscope.models.needle_attention import PARTS, mean_attention

    folder = NeedleFolder(context.settings.needles_folder, str(arguments["run"]))
    place = int(arguments["length"]), float(arguments["depth"])
    trials = [each for key, each in sorted(folder.trials().items()) if key[:2] == place]
    if not trials:
        raise InvalidCall(f"No trial of {place[0]:,} tokens at a depth of {place[1]:g} % is done.")
    read = _attentions(trials)
    mean = mean_attention(read) if read else None
    return {
        "trials": [{**each, "attention": None} for each in trials],
        "parts": list(PARTS),
        "attention": None
        if mean is None
        else {
            "last": listed(mean.last_PLH),
            "answer": listed(mean.answer_PLH),
            "copied": listed(mean.copied_LH),
        },
    }


def listed(values: "np.ndarray") -> Any:
    """An array as nested lists, rounded, None for NaN, which JSON has not."""
    import numpy as np

    rounded = np.round(values.astype(float), _DIGITS).astype(object)
    rounded[np.isnan(values)] = None
    return rounded.tolist()


def cells_of(trials: Sequence[Answer]) -> list[Answer]:
    """The cells of a grid, as `found` tells them, from its trials as `needle_work.told` does."""
    cells: dict[tuple[int, float], list[Answer]] = defaultdict(list)
    for each in trials:
        cells[each["length"], each["depth"]].append(each)
    return [_cell(length, depth, some) for (length, depth), some in cells.items()]


def _cell(length: int, depth: float, trials: Sequence[Answer]) -> Answer:
    means = {
        name: fmean(each[name] for each in trials)
        for name in ("log_probability", "rank", "seconds")
    }
    exact = sum(each["exact"] for each in trials)
    return {"length": length, "depth": depth, "trials": len(trials), "exact": exact, **means}


def _attentions(trials: Sequence[Answer]) -> "list[NeedleAttention]":
    import numpy as np

    from attnscope.models.needle_attention import NeedleAttention

    return [
        NeedleAttention(
            last_PLH=np.array(each["attention"]["last"], np.float32),
            answer_PLH=np.array(each["attention"]["answer"], np.float32),
            copied_LH=np.array(each["attention"]["copied"], np.float32),
        )
        for each in trials
        if each["attention"] is not None
    ]


NEEDLE_ASKS = {
    "needle": Ask(found, lane="patient"),
    "needle_cell": Ask(cell, lane="patient"),
}
"""Merged into `answers.ASKS`."""
