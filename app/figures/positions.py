"""Positions: the vectors that are added, curves over the distance, scores of every head by distance."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from attnscope.app.figures.theme import DIVERGING, Theme, colour_bar, dressed, plain

LINE_COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#B8860B",
    "#56B4E9",
    "#7A5195",
    "#882255",
)
_DASHES = ("solid", "dash", "dot", "dashdot")
_MOST_CELLS = 512


def position_table(table: np.ndarray, *, look: Theme, height: int = 360) -> go.Figure:
    """Draw the vectors that are added to tokens: positions down, dimensions across.

    Args:
        table: float `[positions, dimensions]`; of a longer or wider one evenly spaced rows and columns
            are drawn, 512 at most.
        look: The colours.
        height: In pixels.
    """
    rows, columns = (_spread(length) for length in table.shape)
    drawn = table[np.ix_(rows, columns)]
    highest = float(np.abs(drawn).max(initial=0)) or 1.0
    figure = go.Figure(
        go.Heatmap(
            z=drawn,
            x=columns,
            y=rows,
            zmin=-highest,
            zmax=highest,
            colorscale=DIVERGING,
            colorbar=colour_bar("value"),
            hovertemplate="position %{y}, dimension %{x}: %{z:.3f}<extra></extra>",
        )
    )
    dressed(figure, look=look, height=height)
    figure.update_xaxes(title="dimension", showgrid=False)
    figure.update_yaxes(title="position", showgrid=False, autorange="reversed")
    return figure


def over_distance(
    curves: Mapping[str, np.ndarray],
    x: Sequence[float] | np.ndarray,
    *,
    across: str = "distance, tokens",
    up: str,
    look: Theme,
    logarithmic: tuple[bool, bool] = (False, False),
    height: int = 320,
) -> go.Figure:
    """Draw a line a name: a decay, a penalty, scores by distance, or wavelengths by plane.

    Args:
        curves: Values by name, each as long as `x`; NaN where there is none.
        x: Where they are.
        across: What x is, plain text.
        up: What the values are, plain text.
        look: The colours.
        logarithmic: Whether the axis across is, and the one up.
        height: In pixels.
    """
    figure = go.Figure()
    for at, (name, values) in enumerate(curves.items()):
        figure.add_scatter(
            x=np.asarray(x),
            y=np.asarray(values, dtype=float),
            name=plain(name),
            mode="lines",
            line={
                "color": LINE_COLOURS[at % len(LINE_COLOURS)],
                "dash": _DASHES[at // len(LINE_COLOURS) % len(_DASHES)],
                "width": 1.8,
            },
            hovertemplate=f"{plain(name)}, %{{x}}: %{{y:.4g}}<extra></extra>",
        )
    dressed(figure, look=look, height=height)
    kinds = ["log" if one else "linear" for one in logarithmic]
    figure.update_xaxes(title=plain(across), type=kinds[0])
    figure.update_yaxes(title=plain(up), type=kinds[1])
    return figure


def over_distance_words(curves: Mapping[str, np.ndarray], x: Sequence[float] | np.ndarray) -> str:
    """The lines for who cannot see them: each at its first and its last place."""
    return "; ".join(
        f"{name}: {values[0]:.3g} at {x[0]:g}, {values[-1]:.3g} at {x[-1]:g}"
        for name, values in curves.items()
    )


def heads_over_distance(
    means: np.ndarray, distances: np.ndarray, *, what: str, look: Theme, height: int = 320
) -> go.Figure:
    """Draw every head as a row and every distance as a column: the mean score or weight there.

    Args:
        means: float `[heads, distances]`; NaN where there is none.
        distances: Of the columns; of more than 512, means of neighbours are drawn.
        what: What the values are, plain text.
        look: The colours.
        height: In pixels.
    """
    drawn, at = _pooled(means, distances)
    seen = np.abs(drawn[np.isfinite(drawn)])
    highest = float(seen.max(initial=0)) or 1.0
    figure = go.Figure(
        go.Heatmap(
            z=drawn,
            x=at,
            zmin=-highest,
            zmax=highest,
            colorscale=DIVERGING,
            hoverongaps=False,
            colorbar=colour_bar(what),
            hovertemplate=f"head %{{y}}, distance %{{x:.0f}}<br>{plain(what)} %{{z:.4g}}<extra></extra>",
        )
    )
    dressed(figure, look=look, height=height)
    figure.update_layout(plot_bgcolor=look.masked)
    figure.update_xaxes(title="distance, tokens", showgrid=False)
    figure.update_yaxes(
        title="head", showgrid=False, autorange="reversed", dtick=max(1, len(means) // 12)
    )
    return figure


def _spread(length: int) -> np.ndarray:
    return np.unique(np.linspace(0, length - 1, min(length, _MOST_CELLS)).round().astype(int))


def _pooled(means: np.ndarray, distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    count = len(distances)
    if count <= _MOST_CELLS:
        return means, np.asarray(distances)
    starts = np.linspace(0, count, _MOST_CELLS, endpoint=False).astype(int)
    sizes = np.diff([*starts, count])
    sums = np.add.reduceat(np.nan_to_num(means), starts, axis=1)
    known = np.add.reduceat(np.isfinite(means).astype(int), starts, axis=1)
    at = np.add.reduceat(np.asarray(distances, dtype=float), starts) / sizes
    return np.where(known > 0, sums / np.maximum(known, 1), np.nan), at
