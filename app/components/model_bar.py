"""The line at the top of every page: what is loaded, under which backend, and how to change it."""

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import streamlit as st
from streamlit.components.v2 import component

from attnscope.app.asking.captures import Shown
from attnscope.app.layer_backends import written
from attnscope.app.state import Key
from attnscope.app.views.inspect import DTYPES, View
from attnscope.profiling.units import count, nbytes


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendChoice:
    """One backend as the form offers it.

    Attributes:
        name: Its name in the registry.
        title: Its name for readers.
        refusal: Why it cannot run this model here, with the remedy; empty when it can.
        exact: Whether it computes exact attention.
    """

    name: str
    title: str
    refusal: str = ""
    exact: bool = True


class Modelled(Protocol):
    """A view that names a model and where it runs."""

    @property
    def model(self) -> str:
        """Its source."""
        ...

    @property
    def device(self) -> str:
        """As PyTorch calls it, or "auto"."""
        ...


def _several(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def facts(view: View, shown: Shown | None) -> list[tuple[str, str, str]]:
    """Say what is on the page: (caption, value, the long form for a tooltip), plain text."""
    if shown is None:
        return [("model", view.model, view.model), ("backend", view.backend, view.backend)]
    summary, model = shown.summary, shown.model
    layers = summary["layers"]
    shape = ", ".join(
        (
            _several(len(layers), "layer"),
            _several(layers[0]["heads"], "head"),
            f"{layers[0]['kv_heads']} kv",
        )
    )
    held = f" · {nbytes(model['nbytes'])}" if model.get("nbytes") else ""
    limit = f" of {count(model['max_length'])}" if model.get("max_length") else ""
    revision = str(summary.get("revision") or "")
    several = len(summary["sequences"])
    prompts = f"{count(several)} prompts, " if several > 1 else ""
    found = [
        ("model", f"{summary['model']} · {shape}", f"{summary.get('source') or summary['model']}"),
        ("revision", revision[:10], revision),
        ("backend", str(summary["backend"]), _by_layer(layers)),
        ("device", f"{summary['device']} · {summary['dtype']}{held}", "weights in memory"),
        (
            "captured",
            f"{prompts}{count(shown.tokens)}{limit} tokens · {nbytes(summary['nbytes'])}",
            "queries, keys and log-sum-exp of every layer",
        ),
    ]
    return [fact for fact in found if fact[1]]


def _by_layer(layers: Sequence[Mapping[str, Any]]) -> str:
    return written(tuple((layer["index"], layer["backend"]) for layer in layers))


def model_bar(
    view: View,
    shown: Shown | None,
    backends: Sequence[BackendChoice],
    *,
    models: Sequence[str],
    devices: Sequence[str],
    on_apply: Callable[[], None],
) -> None:
    """Draw the bar; its form fills the drafts of `Key` and calls `on_apply`.

    Args:
        view: What was asked for.
        shown: What is on the page, or None.
        backends: All backends, with why some cannot run here.
        models: Sources to choose from; others can be typed.
        devices: Devices that have a worker.
        on_apply: Called before the rerun when the form is sent.
    """
    with st.container(key="model_bar", horizontal=True, vertical_alignment="center", gap="small"):
        st.html(facts_line(facts(view, shown)))
        with st.popover("Model", key="model_popover"):
            _form(view, backends, models=models, devices=devices, on_apply=on_apply)
        share()


def share() -> None:
    """Draw the button that copies the page's address, which reproduces the view."""
    _share()(key=Key.SHARE, data={})


def facts_line(found: Sequence[tuple[str, str, str]]) -> str:
    """Write what is on a page, as `facts` gives it, as one line of captions over values."""
    items = "".join(
        f"<div><dt>{html.escape(name)}</dt>"
        f'<dd title="{html.escape(long)}">{html.escape(value)}</dd></div>'
        for name, value, long in found
    )
    return f'<dl class="pg-facts">{items}</dl>'


def _form(
    view: View,
    backends: Sequence[BackendChoice],
    *,
    models: Sequence[str],
    devices: Sequence[str],
    on_apply: Callable[[], None],
) -> None:
    with st.form("model_form", border=False):
        model_choice(view, models=models, devices=devices)
        titles = {choice.name: choice.title for choice in backends}
        st.radio(
            "Backend",
            [choice.name for choice in backends],
            key=Key.BACKEND,
            format_func=lambda name: titles.get(name, name),
            captions=[_caption(choice) for choice in backends],
        )
        st.text_input(
            "Other backends by layer",
            key=Key.LAYER_BACKENDS,
            placeholder="0-3: tiled, 5: sdpa_math",
            help=f"Layers are counted from 0; the names are {', '.join(titles)}. "
            "The layers left out run on the backend above.",
        )
        st.form_submit_button("Apply and run", type="primary", on_click=on_apply, width="stretch")


def model_choice(view: Modelled, *, models: Sequence[str], devices: Sequence[str]) -> None:
    """Draw the widgets that choose a model, for a form; they fill the drafts of `Key`.

    Args:
        view: What was asked for.
        models: Sources to choose from; others can be typed.
        devices: Devices that have a worker.
    """
    st.selectbox(
        "Model",
        _with(models, view.model),
        key=Key.SOURCE,
        accept_new_options=True,
        help="The demo, a Hugging Face hub id, or a folder on the server. "
        "Only safetensors are loaded; code that comes with a model is never run.",
    )
    left, middle, right = st.columns(3)
    left.text_input("Revision", key=Key.REVISION, placeholder="default", max_chars=128)
    middle.selectbox("Device", _with(("auto", *devices), view.device), key=Key.DEVICE)
    right.selectbox("dtype", DTYPES, key=Key.DTYPE)


def _caption(choice: BackendChoice) -> str:
    if choice.refusal:
        return f"Not here: {choice.refusal}"
    return "" if choice.exact else "an approximation"


def _with(options: Sequence[str], chosen: str) -> list[str]:
    return list(dict.fromkeys([*options, chosen]))


def backend_choices(found: Sequence[Mapping[str, Any]]) -> tuple[BackendChoice, ...]:
    """Read the worker's answer about its backends."""
    return tuple(
        BackendChoice(
            name=str(each["name"]),
            title=str(each["title"]),
            refusal=str(each.get("refusal") or ""),
            exact=bool(each.get("exact", True)),
        )
        for each in found
    )


_SHARE_HTML = '<button type="button" class="pg-share">Share</button>'
_SHARE_JS = """
export default function ({ parentElement }) {
  const button = parentElement.querySelector(".pg-share");
  const said = (text) => {
    button.textContent = text;
    setTimeout(() => { button.textContent = "Share"; }, 1600);
  };
  button.title = "Copy a link to exactly this view";
  button.onclick = async () => {
    const link = window.location.href;
    try {
      await navigator.clipboard.writeText(link);
      said("Link copied");
    } catch {
      // Without HTTPS a browser gives no clipboard; the link can still be selected.
      window.prompt("Copy this link", link);
    }
  };
}
"""
_SHARE_CSS = """
.pg-share {
  font: inherit; font-size: 0.875rem; color: var(--st-text-color); background: transparent;
  border: 1px solid var(--st-border-color); border-radius: var(--st-button-radius, 0.375rem);
  min-height: 2rem; padding: 0 0.75rem; white-space: nowrap; cursor: pointer; min-width: 5.5rem;
}
.pg-share:hover, .pg-share:focus-visible {
  border-color: var(--st-primary-color); color: var(--st-primary-color);
}
"""


@st.cache_resource(show_spinner=False)
def _share() -> Any:
    return component("attnscope_share", html=_SHARE_HTML, css=_SHARE_CSS, js=_SHARE_JS)
