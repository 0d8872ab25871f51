"""Depth down, length across: how well the needle was found in each cell of a grid."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log10
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from attnscope.app.figures.theme import SEQUENTIAL, Theme, colour_bar, framed, readable_on
from attnscope.app.words.needle import SCORES, score_text
from attnscope.profiling.units import count

Cell = Mapping[str, Any]

_WIDEST, _NARROWEST, _LABELLED = 58, 16, 30
_COLUMNS = ("length", "depth", "trials", "exact", "log_probability", "rank", "seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedleGrid:
    """A grid as it is drawn.

    Attributes:
        cells: Of the answer to `needle`; those not run yet are missing.
        lengths: Tokens, ascending.
        depths: Percent, ascending.
        score: A key of `SCORES`.
        scale: Ends of the colours, of `colour_of`; the same for grids that are compared.
        chosen: Length and depth that are marked, or None.
    """

    cells: Sequence[Cell]
    lengths: Sequence[int]
    depths: Sequence[float]
    score: str
    scale: tuple[float, float]
    chosen: tuple[int, float] | None = None


def colour_of(cell: Cell, score: str) -> float:
    """What the colour of a cell stands for: more is better."""
    if score == "exact":
        return cell["exact"] / cell["trials"]
    return cell[score] if score == "log_probability" else -log10(cell["rank"])


def scale_of(cells: Sequence[Cell], score: str) -> tuple[float, float]:
    """Ends of the colours for all these cells: from the worst of them to the best that can be."""
    if score == "exact":
        return 0.0, 1.0
    # A grid that finds everything is no picture of differences.
    return min([-1.0, *(colour_of(each, score) for each in cells)]), 0.0


def needle_grid(
    found: NeedleGrid, *, title: str, note: str, look: Theme, width: int | None = None
) -> go.Figure:
    """Draw a square a cell.

    Args:
        found: The grid.
        title: Plain text.
        note: Plain text.
        look: The colours.
        width: Pixels that the page has, without a frame; with title and note when None.
    """
    side = int(min(max(((width or 900) - 90) / len(found.lengths), _NARROWEST), _WIDEST))
    figure = go.Figure(_empty(found, side, look))
    figure.add_trace(_squares(found, side, look))
    axis = {"showgrid": False, "zeroline": False, "color": look.muted, "fixedrange": True}
    figure.update_xaxes(axis, range=[-0.5, len(found.lengths) - 0.5], title="tokens of the prompt")
    figure.update_xaxes(
        tickvals=list(range(len(found.lengths))), ticktext=[count(each) for each in found.lengths]
    )
    figure.update_yaxes(axis, range=[len(found.depths) - 0.5, -0.5], title="depth of the needle")
    figure.update_yaxes(
        tickvals=list(range(len(found.depths))), ticktext=[f"{each:g} %" for each in found.depths]
    )
    framed(figure, title=title, note=note, look=look)
    figure.update_layout(plot_bgcolor=look.ground, dragmode=False, showlegend=False)
    if width is None:
        name = SCORES[found.score] if found.score != "rank" else "log of 1 / rank, base 10"
        figure.data[1].update(marker_showscale=True, marker_colorbar=colour_bar(name))
        figure.update_layout(
            width=side * len(found.lengths) + 300, height=side * len(found.depths) + 230
        )
        return figure
    figure.update_layout(title=None, annotations=[], font_size=12)
    figure.update_layout(width=side * len(found.lengths) + 84, height=side * len(found.depths) + 52)
    figure.update_layout(margin={"l": 74, "r": 10, "t": 4, "b": 48})
    figure.update_xaxes(title_font_size=12)
    return figure.update_yaxes(title_font_size=12)


def needle_frame(cells: Sequence[Cell]) -> pd.DataFrame:
    """The cells as a table; means over their trials."""
    rows = sorted(cells, key=lambda each: (each["length"], each["depth"]))
    return pd.DataFrame(
        [[each[name] for name in _COLUMNS] for each in rows], columns=list(_COLUMNS)
    )


def _place(found: NeedleGrid, length: int, depth: float) -> tuple[int, int]:
    return list(found.lengths).index(length), list(found.depths).index(depth)


def _empty(found: NeedleGrid, side: int, look: Theme) -> go.Scatter:
    """What has not run yet."""
    done = {(each["length"], each["depth"]) for each in found.cells}
    spots = [
        _place(found, length, depth)
        for length in found.lengths
        for depth in found.depths
        if (length, depth) not in done
    ]
    return go.Scatter(
        x=[column for column, _ in spots],
        y=[row for _, row in spots],
        mode="markers",
        marker={"symbol": "square", "size": side - 2, "color": look.masked},
        hoverinfo="skip",
    )


def _squares(found: NeedleGrid, side: int, look: Theme) -> go.Scatter:
    low, high = found.scale
    spots = [_place(found, each["length"], each["depth"]) for each in found.cells]
    values = np.array([colour_of(each, found.score) for each in found.cells])
    is_chosen = [found.chosen == (each["length"], each["depth"]) for each in found.cells]
    return go.Scatter(
        x=[column for column, _ in spots],
        y=[row for _, row in spots],
        mode="markers+text" if side >= _LABELLED else "markers",
        text=[score_text(each, found.score) for each in found.cells],
        textfont={"size": 11, "color": readable_on((values - low) / (high - low))},
        customdata=[[each[name] for name in _COLUMNS[:-1]] for each in found.cells],
        marker={
            "symbol": "square",
            "size": side - 2,
            "color": values,
            "cmin": low,
            "cmax": high,
            "colorscale": SEQUENTIAL,
            "opacity": 1,
            "line": {"color": look.text, "width": [3 if each else 0 for each in is_chosen]},
        },
        selected={"marker": {"opacity": 1}},
        unselected={"marker": {"opacity": 1}, "textfont": {"color": None}},
        hovertemplate="%{customdata[0]} tokens, needle at %{customdata[1]} %<br>%{customdata[3]} of %{customdata[2]} "
        "exact<br>%{customdata[4]:.3f} nats a token<br>mean rank %{customdata[5]:.4g}<extra></extra>",
    )
