"""The Inspect page's viewer: every head of a capture, drawn in the browser from numbers it fetches.

Streamlit passes a capture's id and the view; the pictures, maps and rows travel over our own
routes, so switching a head or zooming never waits for the script. What the visitor changes comes
back as the view.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from streamlit.components.v2 import component

from attnscope.app.state import new_report

STATIC = Path(__file__).with_name("static")
STYLES = ("inspector.css", "tokens.css", "map.css", "panel.css")
ENTRY = """
const home = new URL("/attnscope/static/inspector.js", window.location.origin);
let viewer = null;
export default async function (component) {
  viewer ??= import(home.href);
  try {
    return (await viewer).default(component);
  } catch (error) {
    viewer = null;
    component.parentElement.textContent = "The viewer could not be loaded. Reload the page.";
    throw error;
  }
}
"""

View = dict[str, Any]


@functools.cache
def _component() -> Callable[..., Any]:
    return component(
        "attnscope_inspector",
        css="\n".join((STATIC / name).read_text(encoding="utf-8") for name in STYLES),
        js=ENTRY,
        isolate_styles=False,
    )


def clipped(view: Mapping[str, Any], summary: Mapping[str, Any]) -> View:
    """A view brought inside a capture, so that a link to another one never points past its end.

    Args:
        view: Any of the view's keys; the browser checks the rest again.
        summary: The capture's summary, as `/attnscope/captures/{id}` gives it.

    Returns:
        The view with its layer, head and prompt in range; without a layer and a head, it stays so
        and the browser opens the head that says most.
    """
    layers, sequences = summary.get("layers") or [], summary.get("sequences") or []
    out = dict(view)
    if not layers or not sequences:
        return out
    if view.get("layer") is not None or view.get("head") is not None:
        out["layer"] = _in_range(view.get("layer"), len(layers))
        out["head"] = _in_range(view.get("head"), int(layers[out["layer"]]["heads"]))
    out["sequence"] = _in_range(view.get("sequence"), len(sequences))
    return out


def _in_range(value: object, length: int) -> int:
    whole = value if isinstance(value, int) and not isinstance(value, bool) else 0
    return min(max(whole, 0), length - 1)


def inspector(
    capture_id: str | None,
    summary: Mapping[str, Any] | None,
    view: Mapping[str, Any] | None,
    *,
    key: str,
    attention: str = "self",
    captures: Sequence[Mapping[str, str]] = (),
    on_change: Callable[[], None] | None = None,
    on_run_again: Callable[[], None] | None = None,
) -> View | None:
    """Mounts the viewer.

    Args:
        capture_id: What to show, or None for the page's empty state.
        summary: The capture's summary, to bring the view into range; the browser reads its own.
        view: The view to open with: layer, head, sequence, reading, scale, pooling, region, pinned,
            direction, merged, hide_special, sort, filter, compare. A later, different one moves
            the viewer there.
        attention: Which kind of attention of the capture is shown.
        key: The widget's key in the session.
        captures: Other captures to compare with, each `{"id": ..., "title": ...}`.
        on_change: Called before the script reruns because the visitor changed the view.
        on_run_again: Called when the visitor asks for a capture that is no longer held.

    Returns:
        The view as the visitor left it, once for each report; None when there is nothing new, so
        that an old report never undoes what the page itself decided since.
    """
    report = new_report(key)
    # The viewer gets its own report back in the same run: what Python holds and what it sent last
    # are then one, and any later difference is a decision of the page.
    wanted = {**(view or {}), **(report or {})}
    wanted = clipped(wanted, summary or {}) if wanted else None
    _component()(
        key=key,
        data={
            "capture_id": capture_id,
            "attention": attention,
            "view": wanted,
            "captures": [dict(each) for each in captures],
        },
        on_view_change=on_change or _nothing,
        on_run_again_change=on_run_again or _nothing,
    )
    return report


def _nothing() -> None:
    """A state of a component is only kept when it has a callback."""
