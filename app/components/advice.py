"""The advisor on the page: what is asked, and the ranked answer. Data is escaped here."""

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from attnscope.app.components import model_positions
from attnscope.app.components.chart import chart, look
from attnscope.app.components.plain_table import plain_table
from attnscope.app.figures.mechanism import prospects_figure
from attnscope.app.jobs.advice_answers import THIS_MACHINE
from attnscope.app.prompts.examples import example
from attnscope.app.state import Key
from attnscope.app.views.calculator import DTYPES, LONGEST, MOST_SEQUENCES
from attnscope.app.views.mechanisms import WORKLOADS, MechanismsView
from attnscope.app.words import advice as advice_words
from attnscope.profiling.units import count

FIELDS = (
    *("model", "device", "length", "batch", "dtype", "phase"),
    *("free_gib", "tolerated", "workload"),
)
"""Of the view, that are asked for here."""

_PHASES = {"prefill": "Prompt", "decode": "Next token"}


def request(
    view: MechanismsView,
    *,
    models: Sequence[str],
    devices: Sequence[str],
    key: Callable[[str], str],
    on_change: Callable[[], None],
) -> None:
    """Draw the controls; each widget is filled beforehand.

    Args:
        view: What is asked.
        models: Sources to choose from; others can be typed.
        devices: Names of the table.
        key: Of the widget of a field.
        on_change: Called before the page is drawn anew.
    """

    def widget(name: str) -> dict[str, Any]:
        return {"key": key(name), "on_change": on_change}

    model, device, phase, length, batch = st.columns([5, 5, 3, 3, 2])
    model.selectbox(
        "Model",
        list(dict.fromkeys([*models, view.model])),
        accept_new_options=True,
        help="Only its configuration is read, no weights.",
        **widget("model"),
    )
    device.selectbox(
        "Device", list(dict.fromkeys([THIS_MACHINE, *devices, view.device])), **widget("device")
    )
    phase.selectbox("Phase", list(_PHASES), format_func=_PHASES.__getitem__, **widget("phase"))
    length.number_input("Length, tokens", 1, LONGEST, **widget("length"))
    batch.number_input("Batch", 1, MOST_SEQUENCES, **widget("batch"))
    workload, dtype, free, tolerated, _ = st.columns([5, 5, 3, 3, 2])
    workload.selectbox(
        "Used for",
        WORKLOADS,
        format_func=str.capitalize,
        help="Decides which windows are worth a thought: where the beginning is needed all along, also those that "
        "keep it.",
        **widget("workload"),
    )
    dtype.selectbox("dtype", DTYPES, **widget("dtype"))
    free.number_input(
        "Free memory, GiB", 0.0, 1e6, help="0 for all of the device's.", **widget("free_gib")
    )
    tolerated.number_input(
        "Tolerated error, %",
        0.0,
        100.0,
        help="Of attention's output, relative to dense attention's. 0 demands exactness. What a mechanism changes is "
        "measured on the demo model; of others nobody knows it until you measure it, below.",
        **widget("tolerated"),
    )


def measuring(
    *,
    on_measure: Callable[[], None],
    on_change: Callable[[], None],
    is_under_way: bool,
    again: bool,
) -> None:
    """Draw the prompt and the button that measures what the candidates do to the model's output and loss.

    Args:
        on_measure: Called when the visitor asks.
        on_change: Called when the prompt changes.
        is_under_way: Whether a job is.
        again: Whether it was measured before.
    """
    st.html('<h3 class="pg-heading">What they change of this model, measured</h3>')
    prompt, button = st.columns([9, 3], vertical_alignment="bottom")
    prompt.text_input(
        "Prompt that it reads",
        max_chars=model_positions.LONGEST,
        placeholder=f"the text that ships: {example('').title}",
        key=Key.MECHANISM_PROMPT,
        on_change=on_change,
    )
    button.button(
        "Measure its errors again" if again else "Measure its errors",
        type="secondary",
        on_click=on_measure,
        disabled=is_under_way,
        width="stretch",
    )
    st.html(
        '<p class="pg-quiet">Loads the weights, and judges every mechanism on the q, k and v of this prompt against '
        "dense attention in float64; then the whole model is run within each for a minute, the least wrong of each "
        "family first, and its loss compared.</p>"
    )


def answer(found: Mapping[str, Any]) -> None:
    """Draw the recommendation, its reasons, the table, and what would change it."""
    name, _, rest = advice_words.recommendation(found).partition(": ")
    mark = "pg-fits" if found["ranked"][0]["fits"] else "pg-over"
    words = f"<span>{html.escape(rest)}</span>" if rest else ""
    st.html(
        f'<p class="pg-advice {mark}" role="status"><strong>{html.escape(name)}</strong> {words}</p>'
    )
    _list(advice_words.reasons(found))
    st.html('<h3 class="pg-heading">What would change it</h3>')
    _list(advice_words.changes(found))
    if found["beyond"]:
        st.html(f'<p class="pg-claim">{html.escape(advice_words.BEYOND)}</p>')
    leaders, ranked = advice_words.leaders(found), found["ranked"]
    chart(
        prospects_figure(leaders, found["room_bytes"], look=look()),
        pd.DataFrame(ranked).drop(columns=["rank", "quoted", "loss"]),
        name="advice",
        title=f"Advice for {found['model']} on {found['device']}",
        note=advice_words.recommendation(found),
        of="mechanisms",
    )
    title = "Candidates, the best first" + (", one a family" if len(leaders) < len(ranked) else "")
    plain_table(title, advice_words.rows(leaders), header=advice_words.HEADER)
    if len(leaders) < len(ranked):
        with st.expander(f"All {count(len(ranked))}"):
            plain_table(
                "All, the best first", advice_words.rows(ranked), header=advice_words.HEADER
            )
    st.html(f'<p class="pg-quiet">{html.escape(advice_words.REACH)}</p>')
    if found["excluded"]:
        plain_table("Left out", advice_words.left_out(found), header=("", "why"))
    st.html(f'<p class="pg-quiet">{html.escape(advice_words.numbers(found))}</p>')


def _list(sentences: Iterable[str]) -> None:
    items = "".join(f"<li>{html.escape(each)}</li>" for each in sentences)
    st.html(f'<ul class="pg-list">{items}</ul>')
