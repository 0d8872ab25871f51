"""What a check of backends found: the error of every head of one, the latency and the memory of all."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from attnscope.app.figures.theme import (
    SEQUENTIAL,
    Theme,
    backend_colour,
    colour_bar,
    dressed,
    log_scaled,
    readable_on,
)

_NUMBERED_HEADS = 16
_LEAST_ERROR = 1e-9
_WRONG = "#C0392B"
_MEBI = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadCell:
    """One head of the picture.

    Attributes:
        layer: From 0.
        head: From 0.
        relative: Its relative error; None where its output holds NaN or infinity, and where it was not judged, for
            what it was given holds them.
        wrong: Whether it errs more than it may.
    """

    layer: int
    head: int
    relative: float | None
    wrong: bool

    @property
    def text(self) -> str:
        """What stands in the cell."""
        if self.relative is None:
            return "NaN" if self.wrong else "not judged"
        return f"{self.relative:.0e}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One backend of a bar chart.

    Attributes:
        backend: Its name.
        value: In the chart's unit.
        low: The lower end of its spread; None where it has none.
        high: The upper end.
    """

    backend: str
    value: float
    low: float | None = None
    high: float | None = None


def head_errors(cells: Sequence[HeadCell], *, look: Theme) -> go.Figure:
    """Draw the error of every head, layers down, heads across, on a logarithmic scale; a wrong one is crossed.

    Args:
        cells: At least one.
        look: The colours.
    """
    layers = sorted({cell.layer for cell in cells})
    heads = 1 + max(cell.head for cell in cells)
    rows = {layer: row for row, layer in enumerate(layers)}
    relative = np.full((len(layers), heads), np.nan)
    text = np.full((len(layers), heads), "", dtype=object)
    for cell in cells:
        at = rows[cell.layer], cell.head
        relative[at] = np.nan if cell.relative is None else cell.relative
        text[at] = cell.text
    drawn, decades = log_scaled(relative, floor=_LEAST_ERROR)
    known = drawn[np.isfinite(drawn)]
    # Whole powers of ten: a picture of rounding alone is no picture of differences.
    low, high = (np.floor(known.min()), np.ceil(known.max())) if known.size else (-9.0, 0.0)
    high = max(high, low + 1)
    names = [str(layer) for layer in layers]
    figure = go.Figure(
        go.Heatmap(
            z=drawn,
            y=names,
            colorscale=SEQUENTIAL,
            zmin=low,
            zmax=high,
            colorbar=colour_bar(
                "relative error", [each for each in decades if low <= each <= high]
            ),
            xgap=1,
            ygap=1,
            customdata=text,
            hovertemplate="layer %{y}, head %{x}<br>relative error %{customdata}<extra></extra>",
        )
    )
    if heads <= _NUMBERED_HEADS:
        shares = (drawn - low) / (high - low)
        figure.add_trace(_numbers(shares, text, names))
    wrong = [cell for cell in cells if cell.wrong]
    if wrong:
        figure.add_trace(_crosses(wrong))
    dressed(figure, look=look, height=int(min(900, max(220, 34 * len(layers) + 90))))
    figure.update_layout(plot_bgcolor=look.masked, showlegend=False)
    figure.update_xaxes(title="head", showgrid=False, dtick=max(1, heads // 16))
    figure.update_yaxes(
        title="layer",
        showgrid=False,
        type="category",
        autorange="reversed",
        dtick=max(1, len(layers) // 16),
    )
    return figure


def latencies(bars: Sequence[Bar], *, look: Theme) -> go.Figure:
    """Draw the median of every backend's runs in milliseconds, with its 10th to 90th percentile."""
    figure = _bars(bars, "%{x:.3g} ms at the median", look=look)
    figure.update_xaxes(title="ms, median and 10th to 90th percentile", rangemode="tozero")
    return figure


def memories(bars: Sequence[Bar], *, look: Theme) -> go.Figure:
    """Draw the peak memory of every backend in mebibytes."""
    figure = _bars(bars, "%{x:.4g} MiB", look=look)
    figure.update_xaxes(title="MiB at the worst moment, weights included", rangemode="tozero")
    return figure


def milliseconds(backend: str, seconds: Sequence[float]) -> Bar:
    """A bar of a median and its percentiles, in seconds."""
    median, low, high = (1e3 * each for each in seconds)
    return Bar(backend=backend, value=median, low=low, high=high)


def mebibytes(backend: str, nbytes: float) -> Bar:
    """A bar of bytes."""
    return Bar(backend=backend, value=nbytes / _MEBI)


def _bars(bars: Sequence[Bar], hover: str, *, look: Theme) -> go.Figure:
    spread = [bar for bar in bars if bar.low is not None and bar.high is not None]
    figure = go.Figure(
        go.Bar(
            x=[bar.value for bar in bars],
            y=[bar.backend for bar in bars],
            orientation="h",
            marker={"color": [backend_colour(bar.backend) for bar in bars]},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [(bar.high or bar.value) - bar.value for bar in bars],
                "arrayminus": [bar.value - (bar.low or bar.value) for bar in bars],
                "color": look.text,
                "thickness": 1,
                "visible": bool(spread),
            },
            hovertemplate=f"%{{y}}: {hover}<extra></extra>",
        )
    )
    dressed(figure, look=look, height=max(160, 26 * len(bars) + 70))
    figure.update_layout(bargap=0.35)
    figure.update_yaxes(autorange="reversed", automargin=True, showgrid=False, color=look.text)
    return figure


def _numbers(shares: np.ndarray, text: np.ndarray, layers: list[str]) -> go.Scatter:
    row, head = np.indices(shares.shape).reshape(2, -1)
    return go.Scatter(
        x=head,
        y=[layers[at] for at in row],
        text=text.ravel(),
        mode="text",
        textfont={"size": 10, "color": readable_on(shares)},
        hoverinfo="skip",
    )


def _crosses(wrong: Sequence[HeadCell]) -> go.Scatter:
    return go.Scatter(
        x=[cell.head for cell in wrong],
        y=[str(cell.layer) for cell in wrong],
        mode="markers",
        marker={
            "symbol": "square-open",
            "size": 30,
            "color": _WRONG,
            "line": {"width": 3},
        },
        hoverinfo="skip",
    )
