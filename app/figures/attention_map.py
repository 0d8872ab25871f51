"""One head's map: queries down, keys across, masked cells in the ground's neutral colour."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from attnscope.app.figures.theme import (
    DIVERGING,
    SEQUENTIAL,
    Theme,
    colour_bar,
    framed,
    log_scaled,
    plain,
    token_label,
)

READING_TITLES = {
    "weight": "attention weight",
    "score": "score before softmax",
    "value_weighted": "weight \N{MULTIPLICATION SIGN} value norm",
}
_LABELLED_TOKENS = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class MapData:
    """One region of one head's map.

    Attributes:
        values: float32 [rows, columns]; NaN where masked.
        row_edges: int [rows + 1]: row i holds the queries row_edges[i] to row_edges[i + 1] - 1.
        column_edges: int [columns + 1], likewise for keys.
        query_tokens: Every token of the query sequence.
        key_tokens: Every token of the key sequence.
        reading: A key of `READING_TITLES`.
    """

    values: np.ndarray
    row_edges: np.ndarray
    column_edges: np.ndarray
    query_tokens: Sequence[str]
    key_tokens: Sequence[str]
    reading: str = "weight"

    @property
    def exact(self) -> bool:
        """Whether every cell is one query and one key."""
        rows, columns = self.values.shape
        whole = self.row_edges[-1] - self.row_edges[0] == rows
        return bool(whole and self.column_edges[-1] - self.column_edges[0] == columns)


def attention_map(
    data: MapData, *, title: str, note: str, scale: str, look: Theme, pooling: str = "mean"
) -> go.Figure:
    """Draw a region of a head's map.

    Args:
        data: The numbers and their positions.
        title: Plain text.
        note: Where the numbers come from, plain text.
        scale: "log", "linear" or "row" (each row divided by its largest value).
        look: The colours.
        pooling: What a cell of several pairs shows: "mean", "max" or "sum".

    Returns:
        A figure whose hover gives tokens, positions and the exact number.
    """
    drawn, bar = _drawn(data, scale)
    rows, columns = data.values.shape
    signed = data.reading == "score"
    figure = go.Figure(
        go.Heatmap(
            z=drawn,
            x=_centres(data.column_edges),
            y=_centres(data.row_edges),
            customdata=_numbers(data.values),
            text=None if not data.exact or rows * columns > 65_536 else _pairs(data),
            colorscale=DIVERGING if signed else SEQUENTIAL,
            zmid=0 if signed else None,
            hoverongaps=False,
            colorbar=bar,
            hovertemplate=_hover(data, pooling),
        )
    )
    across = _axis(data.column_edges, data.key_tokens, "key", exact=data.exact)
    down = _axis(data.row_edges, data.query_tokens, "query", exact=data.exact)
    figure.update_xaxes(across, showgrid=False, zeroline=False, color=look.muted)
    figure.update_yaxes(
        down, showgrid=False, zeroline=False, color=look.muted, autorange="reversed"
    )
    figure.update_layout(width=960, height=900)
    return framed(figure, title=title, note=note, look=look)


def _drawn(data: MapData, scale: str) -> tuple[np.ndarray, dict[str, object]]:
    name = READING_TITLES.get(data.reading, data.reading)
    values = np.asarray(data.values, dtype=np.float32)
    if scale == "log" and data.reading != "score":
        drawn, decades = log_scaled(values)
        return drawn, colour_bar(name, decades)
    if scale == "row":
        largest = np.nanmax(np.where(np.isnan(values), -np.inf, np.abs(values)), axis=1)
        largest = np.where(np.isfinite(largest) & (largest > 0), largest, 1)
        return values / largest[:, None], colour_bar(f"{name}, row maximum = 1")
    return values, colour_bar(name)


def _centres(edges: np.ndarray) -> np.ndarray:
    return (np.asarray(edges[:-1], dtype=float) + np.asarray(edges[1:], dtype=float) - 1) / 2


def _numbers(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)


def _pairs(data: MapData) -> list[list[str]]:
    queries = [token_label(data.query_tokens[i]) for i in _positions(data.row_edges)]
    keys = [token_label(data.key_tokens[j]) for j in _positions(data.column_edges)]
    return [[f"{query} → {key}" for key in keys] for query in queries]


def _positions(edges: np.ndarray) -> list[int]:
    return [int(edge) for edge in edges[:-1]]


def _hover(data: MapData, pooling: str) -> str:
    name = READING_TITLES.get(data.reading, data.reading)
    if data.exact:
        head = "%{text}<br>" if data.values.size <= 65_536 else ""
        return head + f"query %{{y}}, key %{{x}}<br>{name} %{{customdata:.6g}}<extra></extra>"
    return (
        f"queries about %{{y:.0f}}, keys about %{{x:.0f}}<br>"
        f"{plain(pooling)} {name} %{{customdata:.6g}}<extra></extra>"
    )


def _axis(edges: np.ndarray, tokens: Sequence[str], name: str, *, exact: bool) -> dict[str, Any]:
    if exact and len(edges) - 1 <= _LABELLED_TOKENS:
        positions = _positions(edges)
        labels = [token_label(tokens[i], 12) for i in positions]
        return {"tickvals": positions, "ticktext": labels, "title": {"text": f"{name} token"}}
    return {"title": {"text": f"{name} position"}}
