"""What was predicted beside what was measured, with the error: memory, and the least time."""

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from attnscope.app.components.plain_table import plain_table
from attnscope.profiling.units import count, latency, nbytes

_HEADER = (
    *("backend", "phase", "batch", "tokens", "dtype"),
    *("peak predicted", "measured", "error"),
    *("least time", "measured", "of the least"),
)
_NOTE = (
    "The least time is that of the arithmetic or of the memory traffic, whichever is longer, at the ceilings of the "
    "device: a bound, from which a run that starts many small kernels is far."
)


def predictions(records: Sequence[Mapping[str, Any]]) -> None:
    """Draw the table, folded away.

    Args:
        records: As `profile_records.described` gives them.
    """
    rows = rows_of(records)
    if rows:
        with st.expander("Predicted beside measured"):
            plain_table(_NOTE, rows, header=_HEADER, numbers=True)


def rows_of(records: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """A row for each cell that was measured and had a prediction, in the columns of the table."""
    return [
        (
            *(each["backend"], each["phase"], count(each["batch"]), count(each["length"])),
            each["dtype"],
            *_memory(each["predicted_bytes"], each["allocated_bytes"]),
            *_time(each["prediction"], each["seconds"]),
        )
        for each in records
        if each["failure"] is None and (each["predicted_bytes"] or each["prediction"])
    ]


def _memory(predicted: int | None, measured: float | None) -> tuple[str, str, str]:
    if predicted is None or not measured:
        return _known(predicted), _known(measured), "-"
    # Of the measured, as everywhere: by how much the prediction was off.
    return nbytes(predicted), nbytes(measured), f"{100 * (predicted / measured - 1):+.2f}\u202f%"


def _known(size: float | None) -> str:
    return "-" if size is None else nbytes(size)


def _time(prediction: Mapping[str, Any] | None, taken: Sequence[float]) -> tuple[str, str, str]:
    if prediction is None:
        return "-", latency(taken[0]), "-"
    least = prediction["seconds"]
    return latency(least), latency(taken[0]), f"{taken[0] / least:.3g}x"
