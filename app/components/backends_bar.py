"""The line at the top of Backends: which model and prompt, on which device, and how to change the model."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import streamlit as st

from attnscope.app.components.model_bar import facts_line, model_choice, share
from attnscope.app.views.backends import BackendsView
from attnscope.profiling.units import count, nbytes

Told = Mapping[str, Any]


def bar(
    view: BackendsView,
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
        offered: The answer to `check_offered`; None where there is none.
        found: The answer to `check`; None before there is one.
        models: Sources to choose from; others can be typed.
        devices: Devices that have a worker.
        on_apply: Called before the rerun when the form is sent.
    """
    with st.container(key="model_bar", horizontal=True, vertical_alignment="center", gap="small"):
        st.html(facts_line(facts(view, offered, found)))
        with (
            st.popover("Model", key="backends_model_popover"),
            st.form("backends_model", border=False),
        ):
            model_choice(view, models=models, devices=devices)
            st.form_submit_button("Apply", type="primary", on_click=on_apply, width="stretch")
        share()


def facts(
    view: BackendsView, offered: Told | None, found: Told | None
) -> list[tuple[str, str, str]]:
    """Say what is on the page: (caption, value, the long form for a tooltip), plain text."""
    if found is None:
        shape = f" · {offered['layers']} layers" if offered else ""
        architecture = offered["architecture"] if offered else view.model
        told = [
            ("model", f"{view.model}{shape}", architecture),
            ("revision", view.revision[:10], view.revision),
            ("device", offered["device"] if offered else view.device, "where it runs"),
            ("dtype", view.dtype, "of weights, queries, keys and values"),
        ]
        return [fact for fact in told if fact[1]]
    model, tokens = found["facts"]["model"], found["facts"]["tokens"]
    limit = f" of {count(model['max_length'])}" if model["max_length"] else ""
    several = f"{count(len(tokens))} prompts, " if len(tokens) > 1 else ""
    revision = str(model["revision"] or "")
    told = [
        ("model", f"{model['title']} · {model['layers']} layers", model["source"]),
        ("revision", revision[:10], revision),
        (
            "device",
            f"{model['device']} · {model['dtype']} · {nbytes(model['nbytes'])}",
            "weights in memory",
        ),
        ("checked on", f"{several}{count(max(map(len, tokens)))}{limit} tokens", "the prompt"),
        ("when", f"{found['facts']['created'][:16].replace('T', ' ')} UTC", ""),
    ]
    return [fact for fact in told if fact[1]]
