"""A generation as it goes on, and looked back at: its text lit by what a token looked at, and where every head did.

Python gives its id and what is looked at; steps and rows travel over our own routes, and what the visitor looks at
comes back.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from streamlit.components.v2 import component

from attnscope.app.state import Key, new_report
from attnscope.app.views.generation import GenerationView
from attnscope.app.words.generation import PARTS

STATIC = Path(__file__).with_name("static")
STYLES = ("inspector.css", "tokens.css", "live.css", "generation.css")
ENTRY = """
const home = new URL("/attnscope/static/generation.js", window.location.origin);
export default async function (component) {
  try {
    return (await import(home.href)).default(component);
  } catch (error) {
    component.parentElement.textContent = "The generation could not be shown. Reload the page.";
    throw error;
  }
}
"""


@functools.cache
def _component() -> Callable[..., Any]:
    css = "\n".join((STATIC / name).read_text(encoding="utf-8") for name in STYLES)
    return component("attnscope_generation", css=css, js=ENTRY, isolate_styles=False)


def generation_live(view: GenerationView, *, over: bool) -> dict[str, Any] | None:
    """Follow a generation, or show one that is over.

    Args:
        view: Names it, and what is looked at.
        over: Whether nothing more will come.

    Returns:
        What the visitor looks at now, once for each report; None where that is nothing new.
    """
    report = new_report(Key.GENERATION_VIEW)
    names = ("attention", "layer", "head", "step")
    looked = {name: getattr(view, name) for name in names} if report is None else report
    _component()(
        key=Key.GENERATION_VIEW,
        data={"generation": view.generation, "view": looked, "over": over, "parts": PARTS},
        on_view_change=_nothing,
    )
    return report


def _nothing() -> None:
    """A state of a component is only kept when it has a callback."""
