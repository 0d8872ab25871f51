"""A loaded model's positions on the page: which model and prompt, and what was found. Data is escaped here."""

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import streamlit as st

from attnscope.app.components.chart import chart, look
from attnscope.app.components.model_bar import facts_line, model_choice
from attnscope.app.figures import positions
from attnscope.app.prompts.examples import example
from attnscope.app.state import Key
from attnscope.app.views.mechanisms import MechanismsView
from attnscope.profiling.units import count

Answer = Mapping[str, Any]

LONGEST = 300
"""Characters of the prompt."""
KINDS = {
    "rope": "RoPE, q and k are turned",
    "learned": "learned vectors are added",
    "sinusoidal": "sinusoids are added",
    "alibi": "ALiBi, a penalty on distance",
    "bias": "a learned bias of each distance is added to the scores",
    "none": "none, only the mask tells positions apart",
}
_UP = {
    "rope": "q·k on the mean, of a key like the query",
    "learned": "product of two positions",
    "sinusoidal": "product of two positions",
    "alibi": "added to the score",
}
_OF = "mechanisms"


def request(
    view: MechanismsView,
    *,
    models: Sequence[str],
    devices: Sequence[str],
    on_apply: Callable[[], None],
    on_change: Callable[[], None],
    on_find: Callable[[], None],
    finding: bool,
    again: bool,
) -> None:
    """Draw which model is asked about, and the button; each widget is filled beforehand.

    Args:
        view: What is asked.
        models: Sources to choose from; others can be typed.
        devices: Devices that have a worker.
        on_apply: Called before the rerun when another model is taken.
        on_change: Called when the prompt is another.
        on_find: Called when the visitor asks.
        finding: Whether a job is under way.
        again: Whether it was found before.
    """
    st.html('<h3 class="pg-heading">On a model of yours</h3>')
    with st.container(
        key="positions_model", horizontal=True, vertical_alignment="center", gap="small"
    ):
        st.html(facts_line(_facts(view)))
        with (
            st.popover("Model", key="positions_model_popover"),
            st.form("positions_model_form", border=False),
        ):
            model_choice(_Asked(view.on, view.on_device), models=models, devices=devices)
            st.form_submit_button("Apply", type="primary", on_click=on_apply, width="stretch")
    prompt, button = st.columns([11, 2], vertical_alignment="bottom")
    prompt.text_input(
        "Prompt that it reads",
        max_chars=LONGEST,
        placeholder=f"the text that ships: {example('').title}",
        key=Key.MECHANISM_PROMPT,
        on_change=on_change,
    )
    button.button(
        "Find again" if again else "Find its positions",
        type="secondary" if again else "primary",
        on_click=on_find,
        disabled=finding,
        width="stretch",
    )


class _Asked(NamedTuple):
    """The model as `model_choice` takes it."""

    model: str
    device: str


def _facts(view: MechanismsView) -> list[tuple[str, str, str]]:
    told = [
        ("model", view.on, "whose positions are found"),
        ("revision", view.on_revision[:10], view.on_revision),
        ("device", view.on_device, "where it runs"),
        ("dtype", view.on_dtype, "of weights, queries and keys"),
    ]
    return [fact for fact in told if fact[1]]


def answer(found: Answer) -> None:
    """Draw what the model has, what that is by itself, and what its scores are over the distance."""
    kinds = "; ".join(KINDS[kind] for kind in found["kinds"])
    st.html(
        f"<p><strong>{html.escape(found['model'])}</strong>: {html.escape(kinds)}.</p>"
        f'<p class="pg-quiet">{html.escape(found["evidence"])}</p>'
    )
    if "curves" in found:
        _own(found)
    if found["refusal"]:
        st.html(
            f'<p class="pg-quiet">Its own q·k cannot be had: {html.escape(found["refusal"])}</p>'
        )
    for effect in found["layers"]:
        _layer(effect, found)
    if found["layers"]:
        st.html(f'<p class="pg-quiet">{html.escape(_scores_words(found["layers"]))}</p>')


def _scores_words(layers: Sequence[Answer]) -> str:
    words = (
        "The mean score is that of all pairs so far apart, with the layer's scale, before the softmax; the farthest "
        "distances have few pairs."
    )
    if any(effect["parts"] is not None for effect in layers):
        words += (
            " Beside it is what the mean query gives the mean key when the two are turned that far apart: the part "
            "of the score that the distance alone explains."
        )
    return words


def _own(found: Answer) -> None:
    kind = next(kind for kind in found["kinds"] if kind in _UP)
    table = found.get("table")
    columns = st.columns(1 if table is None else 2)
    with columns[-1]:
        curves = {name: np.array(values) for name, values in found["curves"].items()}
        distances = np.array(found["distances"])
        _chart(
            positions.over_distance(curves, distances, up=_UP[kind], look=look()),
            pd.DataFrame({"distance": distances} | curves),
            name="positions-own",
            title=f"{_UP[kind].capitalize()} over distance",
            note=positions.over_distance_words(curves, distances),
        )
    if table is None:
        return
    with columns[0]:
        rows = np.array(table)
        told = f"{count(len(rows))} of {count(found['positions'])} positions"
        _chart(
            positions.position_table(rows, look=look(), height=320),
            pd.DataFrame(rows),
            name="positions-table",
            title="The vectors that are added",
            note=told,
        )
        st.html(f'<p class="pg-quiet">{told} are drawn, evenly spaced.</p>')


def _layer(effect: Answer, found: Answer) -> None:
    """The mean score of every head at each distance, and the part of it that the distance alone explains."""
    drawn = [("score", "Mean score", effect["scores"])]
    if effect["parts"] is not None:
        drawn.append(("part", "Of mean q and k alone, turned apart", effect["parts"]))
    st.html(
        f'<p class="pg-quiet">Layer {effect["layer"]}, {html.escape(KINDS[effect["kind"]])}: over '
        f"{count(found['tokens'])} tokens of the prompt.</p>"
    )
    distances = np.array(effect["distances"])
    for column, (name, words, values) in zip(st.columns(len(drawn)), drawn, strict=True):
        means = np.array(values, dtype=float)
        with column:
            _chart(
                positions.heads_over_distance(means, distances, what="score", look=look()),
                pd.DataFrame(means, columns=distances),
                name=f"positions-{effect['layer']}-{name}",
                title=f"{words}, layer {effect['layer']}",
                note=f"{len(means)} heads, distances {distances[0]} to {distances[-1]}",
                heading=words,
            )


def _chart(
    figure: Any, data: pd.DataFrame, *, name: str, title: str, note: str, heading: str = ""
) -> None:
    figure.update_layout(margin_t=max(figure.layout.margin.t or 0, 44))
    chart(figure, data, name=name, title=title, note=note, of=_OF, heading=heading)
