"""The line at the top of Generation: which model goes on, under which backends, and how a token is taken."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import streamlit as st

from attnscope.app.components.model_bar import facts_line, model_choice, share
from attnscope.app.state import Key
from attnscope.app.views.generation import CACHES, MOST_TOKENS, GenerationView
from attnscope.profiling.units import count, nbytes

Told = Mapping[str, Any]

SAME = "as the prompt"
"""In place of a backend for the steps."""

_CACHES = {"growing": "grows with each token", "reserved": "reserved at full length"}


def bar(
    view: GenerationView,
    offered: Told | None,
    found: Told | None,
    *,
    models: Sequence[str],
    devices: Sequence[str],
    on_apply: Callable[[], None],
) -> None:
    """Draw the bar; its form fills the drafts of `Key` and calls `on_apply`.

    Args:
        view: What was asked for.
        offered: The answer to `generation_offered`; None where there is none.
        found: The answer to `generation`; None before there is one.
        models: Sources to choose from; others can be typed.
        devices: Devices that have a worker.
        on_apply: Called before the rerun when the form is sent.
    """
    with st.container(key="model_bar", horizontal=True, vertical_alignment="center", gap="small"):
        st.html(facts_line(facts(view, found)))
        with (
            st.popover("Model", key="generation_popover"),
            st.form("generation_form", border=False),
        ):
            model_choice(view, models=models, devices=devices)
            _backends(view, offered)
            _taking()
            st.form_submit_button(
                "Apply and generate", type="primary", on_click=on_apply, width="stretch"
            )
        share()


def facts(view: GenerationView, found: Told | None) -> list[tuple[str, str, str]]:
    """Say what is on the page: (caption, value, the long form for a tooltip), plain text."""
    backend = view.prefill if not view.decode else f"{view.prefill}, then {view.decode}"
    told = [
        ("model", view.model, view.model),
        ("backend", backend, "of the prompt, and of each token after it"),
        ("tokens", f"up to {count(view.tokens)}, {taken_words(view)}", "how the next one is taken"),
    ]
    if found is None:
        return told
    model = found["facts"]["model"]
    revision = str(model["revision"] or "")
    where = f"{model['device']} · {model['dtype']} · {nbytes(model['nbytes'])}"
    return [
        fact
        for fact in (
            ("model", f"{model['title']} · {model['layers']} layers", model["source"]),
            ("revision", revision[:10], revision),
            *told[1:],
            ("device", where, "weights in memory"),
            ("when", f"{found['facts']['created'][:16].replace('T', ' ')} UTC", ""),
        )
        if fact[1]
    ]


def taken_words(view: GenerationView) -> str:
    """How the next token is taken."""
    if view.temperature == 0.0:
        return "the likeliest each time"
    limits = [f"top {view.top_k}"] if view.top_k else []
    limits += [f"top-p {view.top_p:g}"] if view.top_p < 1.0 else []
    return ", ".join(["drawn", f"temperature {view.temperature:g}", *limits, f"seed {view.seed}"])


def _backends(view: GenerationView, offered: Told | None) -> None:
    left, right, last = st.columns(3)
    told = offered or {}
    for place, phase, key, chosen in (
        (left, "prefill", Key.GENERATION_PREFILL, view.prefill),
        (right, "decode", Key.GENERATION_DECODE, view.decode),
    ):
        names = [each["name"] for each in told.get(phase, ()) if not each["reason"]]
        refused = [
            f"**{each['name']}**: {each['reason']}."
            for each in told.get(phase, ())
            if each["reason"]
        ]
        first = [SAME] if phase == "decode" else []
        place.selectbox(
            "Reads the prompt" if phase == "prefill" else "Reads each token",
            list(dict.fromkeys([*first, *names, *filter(None, [chosen])])),
            key=key,
            help="Not here:\n\n" + "\n\n".join(refused) if refused else None,
        )
    last.selectbox(
        "KV cache",
        CACHES,
        key=Key.GENERATION_CACHE,
        format_func=_CACHES.__getitem__,
        help="transformers calls the first dynamic, and the second static.",
    )


def _taking() -> None:
    columns = st.columns(5)
    columns[0].number_input(
        "Tokens", 1, MOST_TOKENS, key=Key.GENERATION_TOKENS, help="Said at most."
    )
    columns[1].number_input(
        "Temperature",
        0.0,
        100.0,
        step=0.1,
        key=Key.GENERATION_TEMPERATURE,
        help="0 takes the likeliest token; above, one is drawn.",
    )
    columns[2].number_input("Top-k", 0, 10**6, key=Key.GENERATION_TOP_K, help="0 for all tokens.")
    columns[3].number_input(
        "Top-p", 0.01, 1.0, step=0.05, key=Key.GENERATION_TOP_P, help="1 for all tokens."
    )
    columns[4].number_input("Seed", 0, 10**9 - 1, key=Key.GENERATION_SEED)
