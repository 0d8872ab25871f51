"""The whole model run within a pattern: what it is run with, and what came of it."""

import html
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import streamlit as st

from attnscope.app.components.chart import file_name, files
from attnscope.app.components.plain_table import plain_table
from attnscope.app.components.sparsity_controls import field
from attnscope.app.components.sparsity_found import heading
from attnscope.app.figures.approximation_errors import (
    ErrorCurve,
    error_curves,
    error_curves_frame,
    error_curves_words,
)
from attnscope.app.figures.next_tokens import next_tokens, next_tokens_frame
from attnscope.app.figures.theme import Theme
from attnscope.app.state import Key
from attnscope.app.views.sparsity import APPROXIMATE, MOST_NEW_TOKENS, SparsitySession
from attnscope.app.words.sparsity import (
    approximation_rows,
    judged_token,
    measured_note,
    no_text,
    run_facts,
    run_rows,
    run_verdict,
    sweep_note,
)

Answer = Mapping[str, Any]

_MOST_TOKENS = 8
_PLOT = {"displaylogo": False, "displayModeBar": False, "typesetMath": False}
_WITH = {
    "pattern": "the pattern above",
    "heads": "each head its best",
    "linear": "linear attention (approximates)",
    "performer": "Performer (approximates)",
    "linformer": "Linformer (approximates)",
}
_SIZES = {"performer": "random features", "linformer": "rows"}
_IDEAS = {
    "linear": "Linear attention puts products of elu + 1 features in the place of the softmax: it changes "
    "every weight, and reads no pairs at all.",
    "performer": "Performer estimates the softmax by 256 random features, without bias and with noise: it "
    "changes every weight.",
    "linformer": "Linformer attends to 256 random mixtures of the keys; a mixture holds later tokens too, so "
    "it refuses models that hide them.",
}


def form(
    session: SparsitySession,
    *,
    layers: Sequence[int],
    backends: Sequence[str],
    generates: bool,
    on_run: Callable[[], None],
    disabled: bool,
) -> None:
    """Draw what the model is run with, and the button.

    Args:
        session: The visitor's.
        layers: The model's own number of each layer.
        backends: That compute a pattern exactly here.
        generates: Whether the model goes on with a text.
        on_run: Called before the rerun when the button is pressed.
        disabled: Whether a run is under way.
    """
    view = session.view
    heading("The whole model", "beside itself as it is, on this prompt")
    with st.container(key="sparsity_run_form"):
        columns = st.columns([2.2, 2.0, 1.3, 1.2, 1.0, 1.3], vertical_alignment="bottom")
        with columns[0]:
            st.selectbox(
                "Run with", list(_WITH), format_func=_WITH.__getitem__, **field(session, "run")
            )
        with columns[1]:
            st.multiselect(
                "Layers",
                layers,
                placeholder="all layers",
                disabled=view.run != "pattern" or bool(view.fitted),
                **field(session, "run_layers", read=lambda chosen: tuple(sorted(chosen))),
            )
        with columns[2]:
            st.selectbox(
                "Backend",
                list(dict.fromkeys([*backends, view.run_backend])),
                disabled=view.run in APPROXIMATE,
                **field(session, "run_backend"),
            )
        with columns[3]:
            st.number_input(
                "New tokens",
                0,
                MOST_NEW_TOKENS,
                disabled=not generates,
                help=f"Generated greedily, with and without; 0 to {MOST_NEW_TOKENS}."
                if generates
                else "An encoder generates no text; it is judged by the tokens that it guesses while they "
                "are hidden.",
                **field(session, "new_tokens"),
            )
        with columns[4]:
            st.checkbox(
                "Measure",
                help="Time in turns and peak memory, beside what is predicted; some seconds more.",
                **field(session, "timed"),
            )
        with columns[5]:
            st.button(
                "Run the model", type="primary", on_click=on_run, disabled=disabled, width="stretch"
            )


def alone(layer: int, head: int) -> None:
    """Say that a pattern made for one head is run on that head.

    Args:
        layer: The model's own number of its layer.
        head: The head.
    """
    st.html(
        f'<p class="pg-note">The pattern above was made for layer {layer}, head {head}: it runs on that head '
        "alone, and every other head stays as it is. “Each head its best” gives each its own.</p>"
    )


def idea(run: str) -> None:
    """Say what an approximation is."""
    st.html(f'<p class="pg-note">{html.escape(_IDEAS[run])}</p>')


def approximations(
    found: Answer, run: str, *, place: tuple[int, int, int], model: str, look: Theme
) -> None:
    """Draw what each approximation errs on this prompt, and the one chosen over its size and over length.

    Args:
        found: Of the job `sparsity_errors`.
        run: The one chosen.
        place: Of the head chosen: the place of its layer, the model's own number of that, and the head.
        model: For the files' names.
        look: The colours.
    """
    table, sizes, lengths = st.columns([40, 40, 40], gap="medium")
    with table:
        plain_table(
            "Relative output error on this prompt's own q, k and v, before any effect on later layers",
            approximation_rows(found["approximations"]),
            header=("", "mean of the heads", "by head"),
        )
        st.html(f'<p class="pg-note">{html.escape(sweep_note(found, run))}</p>')
    charts = ((sizes, "over_sizes", _SIZES.get(run, "")), (lengths, "over_lengths", "tokens"))
    for column, points, across in charts:
        if found[points]:
            with column:
                _curves(found[points], run, across, place=place, model=model, look=look)


def _curves(
    points: Sequence[Answer],
    run: str,
    across: str,
    *,
    place: tuple[int, int, int],
    model: str,
    look: Theme,
) -> None:
    layer, number, head = place
    own = {
        name: [point[name][layer][head] for point in points] for name in ("mean", "least", "most")
    }
    mean, least, most = zip(*(point["heads"] for point in points), strict=True)
    curves = [
        ErrorCurve(name=f"layer {number}, head {head}", **own),
        ErrorCurve(name="mean of the heads", mean=mean, least=least, most=most),
    ]
    places = [point["at"] for point in points]
    title = f"{model}: output error of {run} over {across}"
    note = error_curves_words(curves, places, across)
    name = f"errors-over-{across.replace(' ', '-')}"
    with st.container(key=f"chart_{name}", gap=None):
        heading(f"Error over {across}", "")
        st.plotly_chart(
            error_curves(curves, places, across=across, look=look),
            theme=None,
            config=_PLOT,
            key=f"sparsity_{name}",
            alt=f"{title}. {note}",
        )
        filed = error_curves(curves, places, across=across, look=look, title=title, note=note)
        data = error_curves_frame(curves, places, across=across)
        files(filed, data, name=name, title=title, note=note, of=model)


def assignment(
    counts: Sequence[tuple[str, int]],
    text: str,
    *,
    name: str,
    imported: bool,
    on_import: Callable[[], None],
    on_clear: Callable[[], None],
) -> None:
    """Draw which patterns the heads have, and the file of it.

    Args:
        counts: Name and number of heads of each family, most first.
        text: The assignment as JSON.
        name: Of the file.
        imported: Whether it came from a file.
        on_import: Called when a file is given.
        on_clear: Called to go back to the best found here.
    """
    said = " · ".join(
        f"{family} on {number} {'head' if number == 1 else 'heads'}" for family, number in counts
    )
    whose = "From the file" if imported else "The best of each head within the budget"
    with st.container(key="sparsity_assignment", horizontal=True, vertical_alignment="center"):
        st.html(f'<p class="pg-note">{whose}: {html.escape(said)}</p>')
        st.download_button(
            "Export JSON", text.encode, file_name=name, mime="application/json", on_click="ignore"
        )
        with st.popover("Import"):
            st.file_uploader(
                "An assignment exported here, JSON, up to 1 MiB",
                key=Key.SPARSITY_IMPORT,
                on_change=on_import,
                max_upload_size=64,
            )
        if imported:
            st.button("Back to the best found here", on_click=on_clear, type="tertiary")


def result(found: Answer, *, model: str, look: Theme) -> None:
    """Draw what a run did to the model: loss, next token, text, and what it saves.

    Args:
        found: What the job `sparsity_run` left.
        model: For the files' names.
        look: The colours.
    """
    names = ("as it is", found["title"])
    with st.container(key="sparsity_ran", horizontal=True, vertical_alignment="center"):
        st.html(f'<p class="pg-verdict" role="status">{html.escape(run_verdict(found))}</p>')
        st.download_button(
            "Export JSON",
            json.dumps(found, ensure_ascii=False).encode,
            file_name=file_name(model, "run", "json"),
            mime="application/json",
            key="sparsity_ran_json",
            on_click="ignore",
        )
    numbers, tokens, texts = st.columns([44, 36, 40], gap="medium")
    with numbers:
        plain_table(
            "Attention as predicted, the model as measured",
            run_rows(found),
            header=("", "as it is", "within", ""),
            numbers=True,
        )
        facts = "".join(
            f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
            for name, value in run_facts(found)
        )
        st.html(
            f'<p class="pg-note">{html.escape(measured_note(found))}</p>'
            f'<dl class="pg-facts pg-kept">{facts}</dl>'
        )
    with tokens, st.container(key="chart_next_tokens", gap=None):
        name, where, which = judged_token(found)
        heading(name, where)
        title = f"{model}: {which}, {found['title']}"
        note = f"KL {found['kl']:.4g} nats"
        short = ("as it is", "within")
        st.plotly_chart(
            next_tokens(found["next"][:_MOST_TOKENS], look=look, names=short),
            theme=None,
            config=_PLOT,
            key="sparsity_next_plot",
            alt=f"{title}. {note}",
        )
        filed = next_tokens(found["next"], look=look, title=title, note=note, names=short)
        data = next_tokens_frame(found["next"])
        files(filed, data, name="next-tokens", title=title, note=note, of=model)
    with texts:
        _texts(found, names)


def _texts(found: Answer, names: tuple[str, str]) -> None:
    """What each generates."""
    if found["text"] is None:
        st.html(f'<p class="pg-note">{html.escape(no_text(found))}</p>')
        return
    heading("What it goes on with", "greedy")
    if found["ends"]:
        st.html(
            '<p class="pg-note">The text ends here, for both. Run a prompt that stops in the middle of a '
            "sentence to see more.</p>"
        )
    for name, text in zip(names, found["text"], strict=True):
        st.html(
            f'<p class="pg-note">{html.escape(name)}</p>'
            f'<blockquote class="pg-said">{html.escape(text)}</blockquote>'
        )
