"""The Calculator's panel: length and batch, the verdict and the bar, answered while the hand still moves.

The browser asks our own route at every step and draws what comes; Python hears of the values once they rest.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from streamlit.components.v2 import component

from attnscope.app.state import Key
from attnscope.app.views.calculator import LONGEST, MOST_SEQUENCES, CalculatorView, encode

STATIC = Path(__file__).with_name("static")
STYLES = ("inspector.css", "calculation.css")
ENTRY = """
const home = new URL("/attnscope/static/calculation.js", window.location.origin);
export default async function (component) {
  try {
    return (await import(home.href)).default(component);
  } catch (error) {
    component.parentElement.textContent = "The answer could not be loaded. Reload the page.";
    throw error;
  }
}
"""
_FINE, _COARSE = 4, 2  # steps of a slider to twice the value
_LENGTHS = sorted({round(2 ** (step / _FINE)) for step in range(5 * _FINE, 81)} | {LONGEST})
_BATCHES = sorted({round(2 ** (step / _COARSE)) for step in range(33)})
FIELDS = (
    {"name": "length", "label": "Length, tokens a sequence", "steps": _LENGTHS, "most": LONGEST},
    {"name": "batch", "label": "Batch, sequences", "steps": _BATCHES, "most": MOST_SEQUENCES},
)


@functools.cache
def _component() -> Callable[..., Any]:
    css = "\n".join((STATIC / name).read_text(encoding="utf-8") for name in STYLES)
    return component("attnscope_calculation", css=css, js=ENTRY, isolate_styles=False)


def calculator_panel(
    view: CalculatorView, told: Mapping[str, Any], *, on_set: Callable[[], None]
) -> None:
    """Draw the panel.

    Args:
        view: What it shows.
        told: Of `calculation_panel.panel`.
        on_set: Called when length or batch came to rest at another value, which `Key.PANEL` holds.
    """
    parameters = encode(view)
    fields = [{**field, "value": getattr(view, str(field["name"]))} for field in FIELDS]
    others = {name: text for name, text in parameters.items() if name not in ("length", "batch")}
    _component()(
        key=Key.PANEL,
        data={"query": urlencode(others), "fields": fields, "told": dict(told)},
        on_set_change=on_set,
    )
