"""Colours, type and wording that every chart shares.

The scales are perceptually uniform and keep their order in greyscale and for colour-blind eyes.
One backend has one colour on every chart (Okabe and Ito, 2008, darkened where white ground
asks for it).
"""

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

FONT = '"Source Sans", "Source Sans 3", "Source Sans Pro", "Helvetica Neue", Arial, sans-serif'
SEQUENTIAL = "Viridis"
DIVERGING = "RdBu_r"
BACKEND_COLOURS = {
    "eager": "#0072B2",
    "sdpa_math": "#56B4E9",
    "sdpa_efficient": "#009E73",
    "sdpa_flash": "#D55E00",
    "sdpa_cudnn": "#CC79A7",
    "fa2": "#A65628",
    "fa3": "#3F51B5",
    "fa4": "#00838F",
    "flex": "#B8860B",
    "tiled": "#7A5195",
    "triton": "#B22222",
    "triton_decode": "#E69F00",
    "triton_block_sparse": "#117733",
    "linear": "#882255",
    "performer": "#44AA99",
    "linformer": "#999933",
}
_UNKNOWN_BACKEND = "#6B7280"
_TITLE_CHARACTERS = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Theme:
    """The colours of one ground, as in `.streamlit/config.toml`."""

    name: str
    ground: str
    masked: str
    text: str
    muted: str
    rule: str
    accent: str


LIGHT = Theme(
    name="light",
    ground="#FFFFFF",
    masked="#E7EAEE",
    text="#16191D",
    muted="#5B6470",
    rule="#DFE3E8",
    accent="#1F5FC4",
)
DARK = Theme(
    name="dark",
    ground="#0F1216",
    masked="#1D2228",
    text="#E8EAED",
    muted="#9AA3AE",
    rule="#2A3038",
    accent="#6CA4FF",
)


def theme(name: str) -> Theme:
    """Return the theme of that name; light when it is not "dark"."""
    return DARK if name == "dark" else LIGHT


def backend_colour(name: str) -> str:
    """Return the one colour of a backend on every chart."""
    return BACKEND_COLOURS.get(name, _UNKNOWN_BACKEND)


def plain(text: object) -> str:
    """Make user text inert in a figure: no tags, entities, line breaks or control characters.

    Plotly draws a few HTML tags it finds in text; after this it finds none.
    """
    # The narrow space of our own numbers is not "printable" to Python, and harmless.
    visible = "".join(c if c.isprintable() or c == "\u202f" else _placeholder(c) for c in str(text))
    return html.escape(visible, quote=False)


def token_label(token: str, length: int = 24) -> str:
    """Show a token as text of at most `length` characters: ␣ and ↵ where nothing would be seen."""
    shown = token.replace("\r\n", "↵").replace("\n", "↵").replace("\t", "⇥")
    if shown.strip(" ") == "":
        shown = shown.replace(" ", "␣")
    # Cut before it is made inert: half an entity would be neither text nor inert.
    return plain(shown if len(shown) <= length else shown[: length - 1] + "…")


def provenance(summary: Mapping[str, Any], view: Mapping[str, Any]) -> dict[str, str]:
    """Say where a chart's numbers come from: model, revision, backend, tokens, time, versions."""
    sequence = int(view.get("sequence", 0))
    sequences = summary.get("sequences", [])
    tokens = len(sequences[sequence]["tokens"]) if sequence < len(sequences) else 0
    facts = {
        "model": summary.get("model", ""),
        "revision": summary.get("revision") or "",
        "backend": summary.get("backend", ""),
        "device": summary.get("device", ""),
        "dtype": summary.get("dtype", ""),
        "tokens": tokens,
        "captured": summary.get("created", ""),
        "versions": summary.get("versions", ""),
    }
    return {key: _flat(value) for key, value in facts.items() if value not in ("", None)}


def caption(summary: Mapping[str, Any], view: Mapping[str, Any]) -> str:
    """Provenance as one plain line."""
    return " · ".join(f"{key} {value}" for key, value in provenance(summary, view).items())


def framed(figure: go.Figure, *, title: str, note: str, look: Theme) -> go.Figure:
    """Give a figure the house's type, ground, title and the line that says where it comes from.

    Args:
        figure: Changed in place and returned.
        title: Plain text; made inert here.
        note: Plain text under the chart; made inert here.
        look: The colours.
    """
    figure.update_layout(
        template="none",
        paper_bgcolor=look.ground,
        plot_bgcolor=look.masked,
        font={"family": FONT, "size": 13, "color": look.text},
        title={
            "text": plain(title[:_TITLE_CHARACTERS]),
            "x": 0,
            "xref": "paper",
            "font": {"size": 16},
            "pad": {"b": 12},
        },
        margin={"l": 84, "r": 24, "t": 56, "b": 120},
        hoverlabel={"font": {"family": FONT}},
    )
    figure.add_annotation(
        text=plain(note),
        showarrow=False,
        xref="paper",
        yref="paper",
        x=0,
        y=0,
        xanchor="left",
        yanchor="top",
        yshift=-92,
        font={"size": 11, "color": look.muted},
    )
    return figure


def dressed(figure: go.Figure, *, look: Theme, height: int) -> go.Figure:
    """Give a figure that stands on a page under a heading of its own the house's type and ground.

    Args:
        figure: Changed in place and returned.
        look: The colours.
        height: In pixels.
    """
    figure.update_layout(
        template="none",
        paper_bgcolor=look.ground,
        plot_bgcolor=look.ground,
        height=height,
        font={"family": FONT, "size": 12, "color": look.text},
        hoverlabel={"font": {"family": FONT}},
        margin={"l": 56, "r": 12, "t": 8, "b": 44},
        legend={
            "orientation": "h",
            "traceorder": "normal",
            "y": 1.02,
            "yanchor": "bottom",
            "x": 0,
        },
    )
    axis = {"color": look.muted, "gridcolor": look.rule, "zeroline": False}
    figure.update_xaxes(**axis, title_font_size=12, title_standoff=8)
    figure.update_yaxes(**axis, title_font_size=12, title_standoff=8)
    return figure


def readable_on(shares: np.ndarray) -> list[str]:
    """Choose black or white text for cells of the sequential scale.

    Args:
        shares: Each cell's place on the scale, 0 to 1, of any shape; NaN gives grey.
    """
    dark = np.where(np.nan_to_num(shares, nan=0.0) > 0.55, "#101418", "#FFFFFF")
    return np.where(np.isnan(shares), "#808890", dark).ravel().tolist()


def colour_bar(name: str, decades: list[float] | None = None) -> dict[str, Any]:
    """Lay out a colour bar; with `decades`, its ticks are powers of ten."""
    bar: dict[str, Any] = {
        "thickness": 10,
        "outlinewidth": 0,
        "title": {"text": plain(name), "side": "right"},
    }
    if decades is not None:
        labels = [f"10<sup>{int(decade)}</sup>" if decade else "1" for decade in decades]
        bar |= {"tickvals": decades, "ticktext": labels}
    return bar


def log_scaled(values: np.ndarray, *, floor: float = 1e-6) -> tuple[np.ndarray, list[float]]:
    """Take log10 of weights in [0, ∞), floored, keeping NaN for masked cells.

    Args:
        values: Weights of any shape.
        floor: Weights under it are drawn as if they were it.

    Returns:
        The logarithms and the decades for the colour bar's ticks.
    """
    finite = values[np.isfinite(values)]
    top = float(finite.max()) if finite.size and finite.max() > floor else 1.0
    drawn = np.log10(np.maximum(values, floor))
    decades = [float(d) for d in range(int(np.log10(floor)), int(np.ceil(np.log10(top))) + 1)]
    return drawn, decades


def _placeholder(character: str) -> str:
    code = ord(character)
    return chr(0x2400 + code) if code < 0x20 else "\N{REPLACEMENT CHARACTER}"


def _flat(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return str(value)
