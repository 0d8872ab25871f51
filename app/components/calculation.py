"""What the Calculator shows of an answer: verdict, terms, backends. User text is escaped here."""

import html
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import streamlit as st

from attnscope.app.calculation_words import (
    Answer,
    aside,
    facts,
    layers_words,
    longest_words,
    part_words,
    verdict,
)
from attnscope.app.calculator_view import CalculatorView, encode
from attnscope.app.exports import MEDIA_TYPES
from attnscope.profiling.units import nbytes

_FILES = {"bar": "The bar; its numbers are the table of terms", "curves": "The curves"}


def say_verdict(view: CalculatorView, answer: Answer, room: int, longest: int) -> None:
    """Draw the answer to the page's question, and the facts under it."""
    fits, word, words = verdict(answer, room)
    items = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in facts(view, answer, room, longest)
    )
    mark = "fits" if fits else "over"
    st.html(
        f'<p class="pg-verdict pg-{mark}" role="status"><strong>{word}</strong> '
        f'<span>{html.escape(words)}</span></p><dl class="pg-facts">{items}</dl>'
    )


def terms(view: CalculatorView, answer: Answer) -> None:
    """Draw the table of terms, each with its formula, the formula with numbers and its source."""
    total = answer["total_bytes"]
    rows = [_term(term, total, aside(term["name"], view, answer)) for term in answer["terms"]]
    last = f'<tr class="pg-total"><th scope="row">total</th><td>{nbytes(total)}</td><td></td><td></td><td></td></tr>'
    _table(("what", "memory", "formula", "with the numbers put in", "source"), [*rows, last])
    notes = " ".join(html.escape(note) for note in answer["notes"])
    st.html(f'<p class="pg-quiet">{html.escape(layers_words(answer))}</p>')
    if notes:
        st.html(f'<p class="pg-quiet">{notes}</p>')


def backends(lines: Sequence[Mapping[str, Any]], chosen: str, max_length: int | None) -> None:
    """Draw each backend with the longest context that fits, or why it cannot."""
    rows = []
    for line in lines:
        name = html.escape(line["title"])
        mark = ' class="pg-chosen" aria-current="true"' if line["name"] == chosen else ""
        if "refusal" in line:
            said = f'<td class="pg-refusal">{html.escape(line["refusal"])}</td>'
        else:
            said = f"<td>{html.escape(longest_words(line['longest'], max_length))}</td>"
        rows.append(f'<tr{mark}><th scope="row">{name}</th>{said}</tr>')
    _table(("backend", "longest context that fits"), rows)


def files(view: CalculatorView, theme: str) -> None:
    """Draw a link to each file that the two charts and the table make."""
    for what, name in _FILES.items():
        links = []
        for form in MEDIA_TYPES:
            query = urlencode({**encode(view), "what": what, "format": form, "theme": theme})
            address = html.escape(f"/attnscope/calculation/export?{query}")
            links.append(f'<a href="{address}" download>{form.upper()}</a>')
        st.html(f'<div class="pg-files">{name}<br>{"".join(links)}</div>')


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


def _table(header: Sequence[str], rows: Sequence[str]) -> None:
    names = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in header)
    st.html(
        f'<table class="pg-terms"><thead><tr>{names}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
