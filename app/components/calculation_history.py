"""Predicted beside measured: the runs of the history that are nearest to what is calculated."""

import html
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import streamlit as st

from attnscope.app.components.calculation import table
from attnscope.app.views.calculator import CalculatorView
from attnscope.app.words.calculation import error_words
from attnscope.profiling.units import count, latency, nbytes

_HEADER = (
    *("tokens", "batch", "device"),
    *("memory predicted", "measured", "error", "time, at least", "measured", "of measured"),
    *("when", "run"),
)
_ROOFLINE = (
    "The time predicted is the least by roofline, from the peaks that are listed of the device; a run "
    "that takes twice as long reaches half of them."
)
_UNLISTED = "No time is predicted for a device without listed peaks."


def history(view: CalculatorView, found: Mapping[str, Any]) -> None:
    """Draw the runs, or how to make one.

    Args:
        view: What is calculated.
        found: Of the question `measured`.
    """
    what = f"{view.backend}, {view.phase}, {view.dtype}"
    st.html(
        '<h2 class="pg-heading">Predicted and measured</h2>'
        f'<p class="pg-quiet">Runs of this model: {what}.</p>'
    )
    runs = found["runs"]
    if not runs:
        st.html(f'<p class="pg-quiet">{_none(view)}</p>')
        return
    table(_HEADER, [_row(run) for run in runs])
    predicted = [run for run in runs if run["seconds"][0] is not None]
    notes = [_ROOFLINE] * bool(predicted) + [_UNLISTED] * (len(predicted) < len(runs))
    if found["total"] > len(runs):
        notes.append(f"The {len(runs)} nearest of {count(found['total'])}.")
    st.html(f'<p class="pg-quiet">{" ".join(notes)}</p>')


def _row(run: Mapping[str, Any]) -> str:
    (memory, held), (least, taken) = run["bytes"], run["seconds"]
    words = [
        count(run["batch"]),
        run["device"],
        nbytes(memory),
        *(("not known", "") if held is None else (nbytes(held), error_words(memory, held))),
        "not listed" if least is None else latency(least),
        latency(taken),
        "" if least is None else f"{least / taken:.0%}".replace("%", "\u202f%"),
        run["created"][:10],
    ]
    cells = "".join(f"<td>{html.escape(each)}</td>" for each in words)
    name = "reference run" if run["is_reference"] else run["id"][:6]
    link = f'<a href="/runs?{urlencode({"run": run["id"]})}" target="_self">{name}</a>'
    return f'<tr><th scope="row">{count(run["length"])}</th>{cells}<td>{link}</td></tr>'


def _none(view: CalculatorView) -> str:
    if view.phase == "training":
        return "Training steps are not measured here."
    if view.backend.startswith("transformers_"):
        return "A model's own attention is not measured here: choose a backend of Attnscope."
    if view.model != "demo" and "/" not in view.title:
        return (
            "None yet. Measure the model on the page Profile, by its hub id or its folder: a run of "
            "this very configuration stands here beside its prediction."
        )
    asked = {
        "model": view.model,
        "revision": view.revision,
        "backends": view.backend,
        "lengths": str(view.length),
        "batches": str(view.batch),
        "phases": view.phase,
        "dtypes": view.dtype,
    }
    query = urlencode({name: text for name, text in asked.items() if text})
    address = html.escape(f"/profile?{query}")
    return (
        f'None yet. <a href="{address}" target="_self">Measure this on the page Profile</a>, or with '
        "<code>attnscope profile</code>, and it stands here beside its prediction."
    )
