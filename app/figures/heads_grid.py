"""One number of every head: a square each, layers down and heads across, or in the order of the number."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from attnscope.app.figures.theme import SEQUENTIAL, Theme, colour_bar, framed, plain, readable_on

_WIDEST_CELL, _NARROWEST_CELL = 40, 11
_LABELLED = 26  # pixels of a square that its number fits in


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """A number of every head.

    Attributes:
        values: float [layers, heads]; NaN where a layer has no such head.
        layers: The model's own number of each layer.
        name: What the number is.
        digits: After the decimal point.
        top: End of the colour scale, which starts at 0.
        chosen: Layer and head that are marked, or None.
        by_value: Whether heads stand in descending order of the number.
    """

    values: np.ndarray
    layers: Sequence[int]
    name: str
    digits: int = 2
    top: float = 1.0
    chosen: tuple[int, int] | None = None
    by_value: bool = False

    @property
    def placed(self) -> list[tuple[int, int, int, int]]:
        """Row, column, layer and head of each square."""
        layers, heads = self.values.shape
        there = [(at, head) for at in range(layers) for head in range(heads) if self._is(at, head)]
        if self.by_value:
            there.sort(key=lambda each: -self.values[each])
            spots = [divmod(place, heads) for place in range(len(there))]
        else:
            spots = there
        return [
            (row, column, self.layers[at], head)
            for (row, column), (at, head) in zip(spots, there, strict=True)
        ]

    def value(self, layer: int, head: int) -> float:
        """The number of a head, by the model's number of its layer."""
        return float(self.values[list(self.layers).index(layer), head])

    def _is(self, at: int, head: int) -> bool:
        return not np.isnan(self.values[at, head])


def heads_grid(
    found: Heads, *, title: str, note: str, look: Theme, width: int | None = None
) -> go.Figure:
    """Draw the squares.

    Args:
        found: The numbers.
        title: Plain text.
        note: Plain text.
        look: The colours.
        width: Pixels that the page has, without a frame; with title and note when None.
    """
    heads = found.values.shape[1]
    cell = int(min(max(((width or 900) - 60) / heads, _NARROWEST_CELL), _WIDEST_CELL))
    spots = found.placed
    values = np.array([found.value(layer, head) for _, _, layer, head in spots])
    is_chosen = [found.chosen == (layer, head) for _, _, layer, head in spots]
    marker: dict[str, Any] = {
        "symbol": "square",
        "size": cell - 2,
        "color": values,
        "cmin": 0,
        "cmax": found.top,
        "colorscale": SEQUENTIAL,
        "line": {"color": look.text, "width": [3 if each else 0 for each in is_chosen]},
        "opacity": 1,
    }
    figure = go.Figure(
        go.Scatter(
            x=[column for _, column, _, _ in spots],
            y=[row for row, _, _, _ in spots],
            mode="markers+text" if cell >= _LABELLED else "markers",
            text=[_short(value, found.digits) for value in values],
            textfont={"size": 10, "color": readable_on(values / found.top)},
            customdata=[[layer, head] for _, _, layer, head in spots],
            marker=marker,
            selected={"marker": {"opacity": 1}},
            unselected={"marker": {"opacity": 1}, "textfont": {"color": None}},
            hovertemplate=f"layer %{{customdata[0]}}, head %{{customdata[1]}}<br>{plain(found.name)} "
            f"%{{marker.color:.4g}}<extra></extra>",
        )
    )
    rows = max((row for row, _, _, _ in spots), default=0) + 1
    step = -(-20 // cell)
    axis = {"showgrid": False, "zeroline": False, "color": look.muted, "fixedrange": True}
    figure.update_xaxes(axis, range=[-0.5, heads - 0.5], showticklabels=not found.by_value)
    figure.update_xaxes(title="largest first" if found.by_value else "head")
    figure.update_xaxes(tickvals=list(range(0, heads, step)))
    figure.update_yaxes(axis, range=[rows - 0.5, -0.5], showticklabels=not found.by_value)
    figure.update_yaxes(title=None if found.by_value else "layer")
    figure.update_yaxes(tickvals=list(range(0, rows, step)))
    if not found.by_value:
        figure.update_yaxes(ticktext=[str(each) for each in list(found.layers)[::step]])
    framed(figure, title=title, note=note, look=look)
    figure.update_layout(plot_bgcolor=look.ground, dragmode=False)
    if width is None:
        figure.update_traces(marker_showscale=True, marker_colorbar=colour_bar(found.name))
        figure.update_layout(width=cell * heads + 260, height=cell * rows + 230)
        return figure
    figure.update_layout(title=None, annotations=[], font_size=12)
    figure.update_layout(width=cell * heads + 56, height=cell * rows + 44)
    figure.update_layout(margin={"l": 46, "r": 10, "t": 4, "b": 40})
    figure.update_xaxes(title_font_size=12, title_standoff=4)
    return figure.update_yaxes(title_font_size=12, title_standoff=4)


def heads_frame(found: Heads) -> pd.DataFrame:
    """The numbers as a table."""
    rows = [(layer, head, found.value(layer, head)) for _, _, layer, head in found.placed]
    return pd.DataFrame(rows, columns=["layer", "head", found.name.replace(" ", "_")])


def _short(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".removeprefix("0") if value < 1 else f"{value:.{digits - 1}f}"
