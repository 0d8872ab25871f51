"""What the Calculator shows of an answer: terms, backends, files. User text is escaped here."""

import html
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import streamlit as st

from attnscope.app.figures.theme import backend_colour
from attnscope.app.files.calculation import Calculated, curves_of
from attnscope.app.files.charts import MEDIA_TYPES
from attnscope.app.views.calculator import CalculatorView, encode
from attnscope.app.words.calculation import (
    Answer,
    aside,
    batch_words,
    cost_words,
    layers_words,
    longest_words,
    part_words,
)
from attnscope.profiling.units import count, latency, nbytes

_FILES = {
    "bar": "The bar; its numbers are the table of terms",
    "memory": "Memory over length",
    "time": "Time over length",
    "cost": "Cost over length",
}
_STROKES = {
    "solid": (28,),
    "dash": (8, 5),
    "dot": (2, 3),
    "dashdot": (8, 4, 2, 4),
    "longdash": (13, 5),
    "longdashdot": (13, 4, 2, 4),
}
"""Pixels drawn and left out in turn, as Plotly does."""


def terms(view: CalculatorView, answer: Answer) -> None:
    """Draw the table of terms, each with its formula, the formula with numbers and its source."""
    total = answer["total_bytes"]
    rows = [_term(term, total, aside(term["name"], view, answer)) for term in answer["terms"]]
    last = f'<tr class="pg-total"><th scope="row">total</th><td>{nbytes(total)}</td><td></td><td></td><td></td></tr>'
    table(("what", "memory", "formula", "with the numbers put in", "source"), [*rows, last])
    notes = " ".join(html.escape(note) for note in answer["notes"])
    st.html(f'<p class="pg-quiet">{html.escape(layers_words(answer))}</p>')
    if notes:
        st.html(f'<p class="pg-quiet">{notes}</p>')


def backends(found: Calculated) -> None:
    """Draw each backend with what fits and what it costs, or why it cannot: the key to the curves, too."""
    prices = "cost" in found.charts
    header = ["backend", "longest context", f"largest batch at {count(found.view.length)}"]
    header += ["memory", "at least, by roofline", *["a million tokens"] * prices]
    dashes = {curve.backend: curve.dash for curve in curves_of("memory", found)}
    rows = []
    for reach, here in zip(found.reach["lines"], found.contenders["lines"], strict=True):
        name, most = reach["name"], found.one["model"]["max_length"]
        mark = ' class="pg-chosen" aria-current="true"' if name == found.view.backend else ""
        refusal = here.get("refusal")
        if refusal:
            cells = (
                f'<td class="pg-refusal" colspan="{len(header) - 1}">{html.escape(refusal)}</td>'
            )
        else:
            done = here["work"]
            said = [
                longest_words(reach["longest"], most) if "longest" in reach else "short ones only",
                batch_words(here["largest_batch"]),
                nbytes(here["total_bytes"]),
                latency(done["seconds"]) if "seconds" in done else "no peak is published",
                *([cost_words(done["cost"])] if "cost" in done else []),
            ]
            cells = "".join(f"<td>{html.escape(words)}</td>" for words in said)
        title = html.escape(reach["title"])
        rows.append(
            f'<tr{mark}><th scope="row">{_key(name, dashes.get(name))}{title}</th>{cells}</tr>'
        )
    table(header, rows)


def files(found: Calculated, theme: str) -> None:
    """Draw a link to each file that the charts and the table make."""
    for what in found.charts:
        links = []
        for form in MEDIA_TYPES:
            query = urlencode({**encode(found.view), "what": what, "format": form, "theme": theme})
            address = html.escape(f"/attnscope/calculation/export?{query}")
            links.append(f'<a href="{address}" download>{form.upper()}</a>')
        st.html(f'<div class="pg-files">{_FILES[what]}<br>{"".join(links)}</div>')


def _key(backend: str, dash: str | None) -> str:
    """How the backend's line is drawn; nothing where it has none."""
    lengths = _STROKES[dash] if dash else ()
    stops, at = [], 0
    for place, length in enumerate(lengths):
        colour = "transparent" if place % 2 else backend_colour(backend)
        stops.append(f"{colour} {at}px {at + length}px")
        at += length
    line = f"repeating-linear-gradient(90deg, {', '.join(stops)})" if stops else "none"
    return f'<i class="pg-key" style="background-image: {line}"></i>'


def _term(term: Mapping[str, Any], total: int, words: str) -> str:
    cells = "".join(
        f"<td>{html.escape(term[name])}</td>" for name in ("formula", "numbers", "source")
    )
    beside = f"<small>{html.escape(words)}</small>" if words else ""
    portion = part_words(term["nbytes"], total)
    return (
        f'<tr><th scope="row">{html.escape(term["name"])}{beside}</th>'
        f"<td>{nbytes(term['nbytes'])}<small>{portion}</small></td>{cells}</tr>"
    )


def table(header: Sequence[str], rows: Sequence[str]) -> None:
    """Draw a table: plain names over rows that are markup already."""
    names = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in header)
    st.html(
        f'<table class="pg-terms"><thead><tr>{names}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
