"""A pattern's mask: queries down, keys across, cells in which none, some or all pairs are visible."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from attnscope.app.figures.theme import Theme, framed
from attnscope.profiling.units import count

KINDS = ("hidden", "some pairs", "all pairs")
"""By what a cell's number says: those of the kernels' block masks."""
_SOME, _ALL = {"light": "#8FB4E8", "dark": "#3F6399"}, {"light": "#1F5FC4", "dark": "#8DBBFF"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """A region of a mask.

    Attributes:
        kinds: uint8 [rows, columns], each the place of a word in `KINDS`.
        cell: Queries and keys of a cell; 1 where cells are single pairs.
        query_start: The first query.
        key_start: The first key.
    """

    kinds: np.ndarray
    cell: int
    query_start: int
    key_start: int


def colours(look: Theme) -> tuple[str, str, str]:
    """Of hidden, some and all pairs."""
    return look.masked, _SOME[look.name], _ALL[look.name]


def mask_figure(
    mask: Mask, *, title: str, note: str, look: Theme, side: int | None = None
) -> go.Figure:
    """Draw a region of a mask.

    Args:
        mask: The cells.
        title: Plain text.
        note: Plain text.
        look: The colours.
        side: Pixels of the plot without a frame, for a page; with title and note when None.
    """
    rows, columns = mask.kinds.shape
    middle = (mask.cell - 1) / 2
    hidden, some, every = colours(look)
    figure = go.Figure(
        go.Heatmap(
            z=mask.kinds,
            x0=mask.key_start + middle,
            dx=mask.cell,
            y0=mask.query_start + middle,
            dy=mask.cell,
            zmin=0,
            zmax=2,
            colorscale=[
                *([0, hidden], [1 / 3, hidden], [1 / 3, some]),
                *([2 / 3, some], [2 / 3, every], [1, every]),
            ],
            showscale=False,
            text=None if rows * columns > 4096 else _words(mask),
            hovertemplate=_hover(mask),
        )
    )
    across = (mask.key_start - 0.5, mask.key_start + columns * mask.cell - 0.5)
    down = (mask.query_start - 0.5, mask.query_start + rows * mask.cell - 0.5)
    return _squared(figure, across, down, title=title, note=note, look=look, side=side)


def kept_figure(
    shares: np.ndarray, length: int, *, title: str, note: str, look: Theme, side: int | None = None
) -> go.Figure:
    """Draw which pairs a head keeps by itself.

    Args:
        shares: float [rows, columns], of each cell's visible pairs; NaN where none is visible.
        length: Queries, and keys.
        title: Plain text.
        note: Plain text.
        look: The colours.
        side: See `mask_figure`.
    """
    rows, columns = shares.shape
    height, width = length / rows, length / columns
    hidden, _, every = colours(look)
    figure = go.Figure(
        go.Heatmap(
            z=shares,
            x0=(width - 1) / 2,
            dx=width,
            y0=(height - 1) / 2,
            dy=height,
            zmin=0,
            zmax=1,
            colorscale=[[0, hidden], [1, every]],
            showscale=False,
            hoverongaps=False,
            hovertemplate="query %{y:.0f}, key %{x:.0f}<br>%{z:.3g} of its pairs kept<extra></extra>",
        )
    )
    whole = (-0.5, length - 0.5)
    return _squared(figure, whole, whole, title=title, note=note, look=look, side=side)


def kept_frame(shares: np.ndarray, length: int) -> pd.DataFrame:
    """The cells of a head's own mask as a table."""
    rows, columns = shares.shape
    row, column = np.nonzero(np.nan_to_num(shares) > 0)
    return pd.DataFrame(
        {
            "query_first": row * length // rows,
            "key_first": column * length // columns,
            "share_kept": shares[row, column],
        }
    )


def mask_frame(mask: Mask) -> pd.DataFrame:
    """The cells as a table; those that hide every pair are left out."""
    row, column = np.nonzero(mask.kinds)
    query, key = mask.query_start + row * mask.cell, mask.key_start + column * mask.cell
    return pd.DataFrame(
        {
            "query_first": query,
            "query_last": query + mask.cell - 1,
            "key_first": key,
            "key_last": key + mask.cell - 1,
            "visible": np.array(KINDS, dtype=object)[mask.kinds[row, column]],
        }
    )


def _squared(
    figure: go.Figure,
    across: tuple[float, float],
    down: tuple[float, float],
    *,
    title: str,
    note: str,
    look: Theme,
    side: int | None,
) -> go.Figure:
    """Keys across, queries down, a token as wide as it is high."""
    axis = {"constrain": "domain", "color": look.muted, "showgrid": False, "zeroline": False}
    figure.update_xaxes(axis, title="key position", range=across)
    figure.update_yaxes(axis, title="query position", range=down[::-1], scaleanchor="x")
    framed(figure, title=title, note=note, look=look)
    figure.update_layout(plot_bgcolor=look.ground)
    if side is None:
        return figure.update_layout(width=900, height=960)
    figure.update_layout(title=None, annotations=[], font_size=12, height=side)
    figure.update_layout(margin={"l": 50, "r": 4, "t": 6, "b": 42})
    figure.update_xaxes(title_font_size=12, title_standoff=6)
    return figure.update_yaxes(title_font_size=12, title_standoff=6)


def _words(mask: Mask) -> list[list[str]]:
    return [[KINDS[kind] for kind in line] for line in mask.kinds.tolist()]


def _hover(mask: Mask) -> str:
    if mask.cell == 1:
        return "query %{y}, key %{x}<extra></extra>"
    about = f"{count(mask.cell)} queries about %{{y:.0f}}, {count(mask.cell)} keys about %{{x:.0f}}"
    return f"{about}<extra></extra>"
