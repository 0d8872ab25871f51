"""What a generation left: what was said and held in figures, and the way to look at all of it in Inspect."""

import html
from collections.abc import Mapping
from typing import Any

import streamlit as st

from attnscope.app.components.chart import chart, table_files
from attnscope.app.components.plain_table import plain_table
from attnscope.app.figures.cache import cache_growth
from attnscope.app.figures.theme import Theme
from attnscope.app.words.generation import HEADER, cache_words, heading, rows_of, steps_frame

Told = Mapping[str, Any]

_MOST_ROWS = 64


def summary(found: Told, address: str) -> None:
    """Draw what was said in one line, and the link to Inspect.

    Args:
        found: The answer to `generation`, with at least one step.
        address: Of Inspect at its capture; empty where none is kept.
    """
    link = (
        f' <a href="{html.escape(address)}" target="_self">Open in Inspect</a>'
        if address
        else " What its tokens looked at is not kept: the process that held it is gone."
    )
    st.html(f'<p class="pg-note pg-generation">{html.escape(heading(found))}{link}</p>')


def figures(found: Told, *, look: Theme) -> None:
    """Draw the cache over the steps, and the steps as a table; both download."""
    held = [sum(step["cache"]) for step in found["steps"]]
    predicted = found["facts"]["predicted"]
    title, note = "KV cache over the tokens said", cache_words(found)
    of, frame = found["facts"]["model"]["title"], steps_frame(found)
    chart(
        cache_growth(held, predicted, look=look),
        frame.filter(["step", "cache_bytes", "predicted_cache_bytes"]),
        name="generation_cache",
        title=title,
        note=note,
        of=of,
        heading=title,
        exported=cache_growth(held, predicted, look=look, title=title, note=note),
    )
    st.html(f'<p class="pg-note">{html.escape(note)}</p>')
    with st.expander("Every token", key="generation_steps"):
        rows = rows_of(found, _MOST_ROWS)
        more = len(found["steps"]) > len(rows)
        label = f"The last {len(rows)} tokens; the file holds all" if more else "The tokens said"
        plain_table(label, rows, header=HEADER)
        table_files(frame, name="generation_steps", title=label, note=heading(found), of=of)
