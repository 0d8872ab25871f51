"""What happens while a profile is measured: memory over time and the latency of each run, drawn in the browser.

Python gives a profile's id once; samples, runs and results travel over our own route.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from streamlit.components.v2 import component

from attnscope.app.commands.profile import HEADER
from attnscope.app.figures.theme import BACKEND_COLOURS

STATIC = Path(__file__).with_name("static")
STYLES = ("inspector.css", "live.css")
ENTRY = """
const home = new URL("/attnscope/static/live.js", window.location.origin);
export default async function (component) {
  try {
    return (await import(home.href)).default(component);
  } catch (error) {
    component.parentElement.textContent = "The live charts could not be loaded. Reload the page.";
    throw error;
  }
}
"""


@functools.cache
def _component() -> Callable[..., Any]:
    css = "\n".join((STATIC / name).read_text(encoding="utf-8") for name in STYLES)
    return component("attnscope_profile_live", css=css, js=ENTRY, isolate_styles=False)


def profile_live(profile: str) -> None:
    """Follow a profile.

    Args:
        profile: Its id.
    """
    data = {"profile": profile, "colours": BACKEND_COLOURS, "header": list(HEADER)}
    _component()(key=f"live_{profile}", data=data)
