"""Rollout and flow as charts: layer by layer, every token by every token, and the two side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from attnscope.app.figures.theme import (
    SEQUENTIAL,
    Theme,
    colour_bar,
    dressed,
    framed,
    log_scaled,
    token_label,
)

FLOOR = 1e-4
"""Shares under it are drawn as if they were it."""
_ROW, _AROUND = 26, 74
_LABELLED = 48
_FLOW = "#D55E00"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """Shares of tokens, some a cell.

    Attributes:
        values: float [rows, columns]; 0 where no path leads.
        edges: Of the columns: column j holds the tokens edges[j] to edges[j + 1] − 1.
        rows: What each row is; of a map the edges of its rows.
        tokens: Every token, for labels.
    """

    values: np.ndarray
    edges: np.ndarray
    rows: Sequence[str] | np.ndarray
    tokens: Sequence[str]


def trail_figure(trail: Cells, *, look: Theme, title: str = "", note: str = "") -> go.Figure:
    """Draw how one token's share spreads from layer to layer: a row a layer, the token alone above.

    Args:
        trail: A row a stage, with its name.
        look: The colours.
        title: Plain text; with one the figure is framed for a file.
        note: Plain text.
    """
    figure = _heatmap(trail, "%{y}<br>tokens about %{x:.0f}: %{customdata:.4g}<extra></extra>")
    names = list(trail.rows)
    figure.update_yaxes(
        tickvals=list(range(len(names))), ticktext=names, autorange="reversed", automargin=True
    )
    height = _ROW * len(names) + _AROUND
    return _unreached(_finished(figure, height, look=look, title=title, note=note), look)


def rollout_map_figure(
    found: Cells, *, look: Theme, title: str = "", note: str = "", height: int = 400
) -> go.Figure:
    """Draw the rollout of every token: tokens at the top down, tokens at the input across.

    Args:
        found: A row a cell of tokens, with the edges of the rows.
        look: The colours.
        title: Plain text; with one the figure is framed for a file.
        note: Plain text.
        height: In pixels, on a page.
    """
    figure = _heatmap(
        found, "token %{y:.0f} from token %{x:.0f}<br>%{customdata:.4g}<extra></extra>"
    )
    figure.update_traces(y=_middles(np.asarray(found.rows)))
    # On a page it stands under the trail, on the same scale.
    figure.update_traces(showscale=bool(title))
    figure.update_xaxes(title="token at the input")
    figure.update_yaxes(title="token at the top", autorange="reversed")
    return _unreached(_finished(figure, height, look=look, title=title, note=note), look)


def flow_figure(
    flows: Sequence[float],
    shares: Sequence[float],
    tokens: Sequence[str],
    start: int,
    *,
    look: Theme,
    title: str = "",
    note: str = "",
) -> go.Figure:
    """Draw the flow from each token of a window beside its rollout.

    Args:
        flows: Of each.
        shares: Their rollout.
        tokens: Their texts.
        start: Position of the first.
        look: The colours.
        title: Plain text; with one the figure is framed for a file.
        note: Plain text.
    """
    figure = go.Figure()
    positions = list(range(start, start + len(flows)))
    labels = [token_label(token, 12) for token in tokens]
    for name, values, colour in (("rollout", shares, look.accent), ("flow", flows, _FLOW)):
        figure.add_bar(
            x=positions,
            y=list(values),
            name=name,
            marker={"color": colour},
            customdata=labels,
            hovertemplate=f"%{{customdata}} %{{x}}<br>{name} %{{y:.4g}}<extra></extra>",
        )
    figure.update_layout(barmode="group", bargap=0.2, bargroupgap=0)
    if len(flows) <= _LABELLED:
        figure.update_xaxes(tickvals=positions, ticktext=labels, tickangle=-60, tickfont_size=10)
    else:
        figure.update_xaxes(title="token")
    figure.update_yaxes(title="share, or flow", rangemode="tozero")
    return _finished(figure, 300, look=look, title=title, note=note)


def cells_frame(found: Cells) -> pd.DataFrame:
    """The cells as a table; those that no path reaches are left out."""
    row, column = np.nonzero(found.values > 0)
    names = np.asarray(found.rows)
    edges = np.asarray(found.edges)
    return pd.DataFrame(
        {
            "row": names[row],
            "token_first": edges[column],
            "token_last": edges[column + 1] - 1,
            "share": found.values[row, column],
        }
    )


def _heatmap(cells: Cells, hover: str) -> go.Figure:
    values = np.where(cells.values > 0, cells.values, np.nan)
    drawn, decades = log_scaled(values, floor=FLOOR)
    return go.Figure(
        go.Heatmap(
            z=drawn,
            x=_middles(np.asarray(cells.edges)),
            customdata=values,
            colorscale=SEQUENTIAL,
            zmin=decades[0],
            zmax=decades[-1],
            hoverongaps=False,
            colorbar=colour_bar("share", decades),
            hovertemplate=hover,
        )
    )


def _middles(edges: np.ndarray) -> np.ndarray:
    return (edges[:-1] + edges[1:] - 1) / 2


def _finished(figure: go.Figure, height: int, *, look: Theme, title: str, note: str) -> go.Figure:
    if title:
        framed(figure, title=title, note=note, look=look)
        figure.update_layout(width=960, height=height + 260)
    else:
        # No standoff of the titles: while there is no tick yet, Plotly would place them at infinity.
        dressed(figure, look=look, height=height).update_yaxes(title_standoff=None)
        figure.update_xaxes(title_standoff=None)
    return figure.update_xaxes(showgrid=False)


def _unreached(figure: go.Figure, look: Theme) -> go.Figure:
    """Where no path leads stands neutral, as what is masked does elsewhere."""
    return figure.update_layout(plot_bgcolor=look.masked).update_yaxes(showgrid=False)
