"""A quantity over length on logarithmic axes, a line a backend: memory with its wall, time, cost."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log, log10

import plotly.graph_objects as go

from attnscope.app.figures.theme import Theme, backend_colour, framed, plain
from attnscope.profiling.units import count

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
"""Of lines, in turn: a colour alone tells nothing to everybody."""

_ABOVE = 64
_MOST_TICKS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One backend: its name, its title, a value at each length, and how its line is drawn."""

    backend: str
    title: str
    values: tuple[float, ...]
    dash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """What is drawn over length.

    Attributes:
        title: Of the axis, plain text.
        words: A value as text, with its unit.
        base: Ticks stand at whole powers of it.
        wall: The value that cannot be passed, or None.
        wall_words: What stands there.
    """

    title: str
    words: Callable[[float], str]
    base: int = 10
    wall: float | None = None
    wall_words: str = ""


def length_curves(
    curves: Sequence[Curve],
    lengths: Sequence[int],
    quantity: Quantity,
    *,
    chosen: tuple[str, int, float],
    title: str,
    note: str,
    look: Theme,
) -> go.Figure:
    """Draw the curves, the wall, and the place that is chosen.

    Args:
        curves: One a backend.
        lengths: Tokens, of every curve.
        quantity: What they are.
        chosen: The backend, length and value that are shown above.
        title: Plain text.
        note: Where the numbers come from, plain text.
        look: The colours.
    """
    figure, words = go.Figure(), quantity.words
    for curve in curves:
        _line(figure, curve, lengths, words, width=3 if curve.backend == chosen[0] else 1.5)
    figure.add_scatter(
        x=[chosen[1]],
        y=[chosen[2]],
        mode="markers",
        marker={"size": 10, "color": look.text, "symbol": "circle-open", "line": {"width": 2}},
        text=[f"chosen: {count(chosen[1])} tokens, {words(chosen[2])}"],
        hoverinfo="text",
        name="chosen",
        showlegend=False,
    )
    values = [value for curve in curves for value in curve.values] or [chosen[2]]
    lowest, highest = min([chosen[2], *values]), max([chosen[2], *values])
    if quantity.wall is not None:
        _wall(figure, quantity.wall, quantity.wall_words, look)
        # Dense attention leaves every device far below: what lies much above the wall is cut off.
        highest = max(chosen[2], quantity.wall, min(highest, _ABOVE * quantity.wall))
        lowest = min(lowest, quantity.wall)
    ticks = _powers(max(lowest, 1e-12), highest, quantity.base)
    figure.update_xaxes(
        type="log",
        title="tokens",
        tickvals=list(lengths)[::3],
        ticktext=[count(length) for length in lengths[::3]],
    )
    figure.update_yaxes(
        type="log",
        title=quantity.title,
        range=[log10(max(lowest, 1e-12) * 0.8), log10(highest * 1.25)],
        tickvals=ticks,
        ticktext=[words(tick) for tick in ticks],
    )
    for axis in (figure.update_xaxes, figure.update_yaxes):
        axis(color=look.muted, gridcolor=look.rule, zeroline=False)
    framed(figure, title=title, note=note, look=look)
    figure.update_layout(plot_bgcolor=look.ground, height=460)
    return figure


def curve_words(
    curves: Sequence[Curve], lengths: Sequence[int], words: Callable[[float], str]
) -> str:
    """The curves for who cannot see them: each backend at the first and the last length."""
    return "; ".join(
        f"{curve.title}: {words(curve.values[0])} at {count(lengths[0])} tokens, "
        f"{words(curve.values[-1])} at {count(lengths[-1])}"
        for curve in curves
    )


def _line(
    figure: go.Figure,
    curve: Curve,
    lengths: Sequence[int],
    words: Callable[[float], str],
    *,
    width: float,
) -> None:
    figure.add_scatter(
        x=list(lengths),
        y=list(curve.values),
        name=plain(curve.title),
        mode="lines",
        line={"color": backend_colour(curve.backend), "width": width, "dash": curve.dash},
        text=[
            f"{plain(curve.title)}, {count(length)} tokens: {words(value)}"
            for length, value in zip(lengths, curve.values, strict=True)
        ],
        hoverinfo="text",
    )


def _wall(figure: go.Figure, at: float, words: str, look: Theme) -> None:
    figure.add_hline(y=at, line={"color": look.text, "width": 2, "dash": "dash"})
    figure.add_annotation(
        text=words,
        showarrow=False,
        font={"color": look.text},
        x=0.01,
        xref="paper",
        # An annotation of a logarithmic axis stands at the logarithm.
        y=log10(max(at, 1)),
        xanchor="left",
        yanchor="bottom",
    )


def _powers(lowest: float, highest: float, base: int) -> list[float]:
    first, last = floor(log(lowest, base)), ceil(log(highest, base))
    step = max(-(-(last - first) // _MOST_TICKS), 1)
    return [float(base) ** power for power in range(first, last + 1, step)]
