"""A prompt as text, lit by shares of its tokens: several sets of them side by side, and a click pins another token."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from streamlit.components.v2 import component

from attnscope.app.state import new_report

STATIC = Path(__file__).with_name("static")
STYLES = ("inspector.css", "tokens.css", "lit.css")
ENTRY = """
const home = new URL("/attnscope/static/lit.js", window.location.origin);
export default async function (component) {
  try {
    return (await import(home.href)).default(component);
  } catch (error) {
    component.parentElement.textContent = "The text could not be loaded. Reload the page.";
    throw error;
  }
}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Light:
    """What lights the text once.

    Attributes:
        name: Stands over it.
        words: What the pinned token does in it, after the token's name.
        positions: Of the tokens that have a share; others are dark.
        shares: Of each.
    """

    name: str
    words: str
    positions: Sequence[int]
    shares: Sequence[float]


@functools.cache
def _component() -> Callable[..., Any]:
    css = "\n".join((STATIC / name).read_text(encoding="utf-8") for name in STYLES)
    return component("attnscope_lit_text", css=css, js=ENTRY, isolate_styles=False)


def lit_text(
    sequence: Mapping[str, Any], lights: Sequence[Light], *, pinned: int, key: str
) -> int | None:
    """Draw the text as often as there are lights.

    Args:
        sequence: Of a capture's summary.
        lights: At least one.
        pinned: Position of the token that it is about.
        key: The widget's key in the session.

    Returns:
        The position that the visitor pinned, once; None when there is nothing new.
    """
    report = new_report(key)
    names = ("tokens", "words", "marks", "grid", "picture")
    _component()(
        key=key,
        data={
            "text": {name: sequence.get(name) for name in names},
            "lights": [asdict(light) for light in lights],
            "pinned": pinned,
        },
        on_view_change=_nothing,
    )
    chosen = None if report is None else report.get("pinned")
    if not isinstance(chosen, int) or isinstance(chosen, bool):
        return None
    return chosen if 0 <= chosen < len(sequence["tokens"]) else None


def _nothing() -> None:
    """A state of a component is only kept when it has a callback."""
