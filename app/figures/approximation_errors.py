"""The error of attention that approximates over its features or over length: a head, and the mean of the heads."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from attnscope.app.figures.theme import Theme, dressed, framed, plain
from attnscope.profiling.units import count

_COLOURS = ("#0072B2", "#D55E00")
_DASHES = ("solid", "dash")
_HEIGHT = 260


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorCurve:
    """A line, with the spread of what is random about it.

    Attributes:
        name: Plain text.
        mean: Relative output error at each place.
        least: Of any seed; None where there is none.
        most: Of any seed.
    """

    name: str
    mean: Sequence[float | None]
    least: Sequence[float | None]
    most: Sequence[float | None]


def error_curves(
    curves: Sequence[ErrorCurve],
    places: Sequence[int],
    *,
    across: str,
    look: Theme,
    title: str = "",
    note: str = "",
) -> go.Figure:
    """Draw at most two lines, each over a band from the least to the most.

    Args:
        curves: As long as `places`.
        places: Features, rows, or tokens, ascending.
        across: What they are.
        look: The colours.
        title: Plain text; with one the figure is framed for a file.
        note: Plain text.
    """
    figure = go.Figure()
    for curve, colour, dash in zip(curves, _COLOURS, _DASHES, strict=False):
        red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
        figure.add_scatter(
            x=[*places, *reversed(places)],
            y=[*curve.most, *reversed(curve.least)],
            mode="lines",
            line={"width": 0},
            fill="toself",
            fillcolor=f"rgba({red},{green},{blue},0.18)",
            hoverinfo="skip",
            showlegend=False,
        )
        figure.add_scatter(
            x=list(places),
            y=list(curve.mean),
            name=plain(curve.name),
            mode="lines+markers",
            line={"color": colour, "dash": dash, "width": 2},
            customdata=list(zip(curve.least, curve.most, strict=True)),
            hovertemplate=f"{plain(curve.name)}, %{{x:,}} {across}: %{{y:.3g}} "
            "(%{customdata[0]:.3g} to %{customdata[1]:.3g})<extra></extra>",
        )
    height = _HEIGHT if not title else _HEIGHT + 240
    if title:
        framed(figure, title=title, note=note, look=look)
        figure.update_layout(plot_bgcolor=look.ground, width=860, height=height)
    else:
        dressed(figure, look=look, height=height)
    axis = {"color": look.muted, "gridcolor": look.rule, "zeroline": False}
    figure.update_xaxes(
        axis,
        type="log",
        title=across,
        tickvals=list(places),
        ticktext=[count(place) for place in places],
    )
    return figure.update_yaxes(axis, title="relative output error", rangemode="tozero")


def error_curves_frame(
    curves: Sequence[ErrorCurve], places: Sequence[int], *, across: str
) -> pd.DataFrame:
    """The lines as a table, a row a place and line."""
    rows = [
        (place, curve.name, *values)
        for curve in curves
        for place, *values in zip(places, curve.mean, curve.least, curve.most, strict=True)
    ]
    return pd.DataFrame(rows, columns=[across.replace(" ", "_"), "of", "mean", "least", "most"])


def error_curves_words(curves: Sequence[ErrorCurve], places: Sequence[int], across: str) -> str:
    """The lines for who cannot see them: each at its first and its last place."""
    return "; ".join(
        f"{curve.name}: {_value(curve.mean[0])} at {count(places[0])} {across}, "
        f"{_value(curve.mean[-1])} at {count(places[-1])}"
        for curve in curves
    )


def _value(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"
