"""A figure of a sweep over length, a line a backend and a panel a phase; what could not be measured is a mark."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from attnscope.app.figures.theme import Theme, backend_colour, dressed, plain

Reading = Literal["latency", "memory", "throughput", "power", "energy"]

_HEIGHT = 460
_TICKS = [step * 10.0**decade for decade in range(-4, 7) for step in (1, 2, 5)]
_TICK_TEXTS = [f"{tick:,.7g}".replace(",", "\u202f") for tick in _TICKS]
UNITS: dict[Reading, str] = {
    "latency": "ms",
    "memory": "MiB",
    "throughput": "tokens/s",
    "power": "W",
    "energy": "J a token",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPoint:
    """One cell of a sweep.

    Attributes:
        line: What is compared: the backend's name, and the batch and dtype where they differ.
        backend: Gives the colour.
        phase: Gives the panel.
        length: Tokens.
        value: What was measured and its ends, such as median, 10th and 90th percentile; None where it failed.
        words: Shown at the point: what ran, or why nothing did.
        predicted: The value before the run; None where nobody can tell.
    """

    line: str
    backend: str
    phase: str
    length: int
    value: tuple[float, float, float] | None
    words: str
    predicted: float | None = None


def over_length(
    points: Sequence[SweepPoint], reading: Reading, *, look: Theme, height: int = _HEIGHT
) -> go.Figure:
    """Draw a panel a phase, without a frame.

    Args:
        points: At least one. Beside what was measured stands, dotted, what was predicted.
        reading: What is drawn.
        look: The colours.
        height: Of the figure, in pixels.
    """
    phases = list(dict.fromkeys(point.phase for point in points))
    figure = make_subplots(rows=1, cols=len(phases), horizontal_spacing=0.12)
    _draw_panels(figure, points, reading, look)
    for column, phase in enumerate(phases, start=1):
        figure.update_xaxes(title=plain(f"tokens, {phase}"), row=1, col=column)
    return dressed(figure, look=look, height=height)


def _draw_panels(
    figure: go.Figure, points: Sequence[SweepPoint], reading: Reading, look: Theme
) -> None:
    phases = dict.fromkeys(point.phase for point in points)
    lengths = sorted({point.length for point in points})
    for column, phase in enumerate(phases, start=1):
        here = [point for point in points if point.phase == phase]
        for trace in traces(here, with_names=column == 1, look=look):
            figure.add_trace(trace, row=1, col=column)
        figure.update_xaxes(title="tokens", type="log", tickvals=lengths, row=1, col=column)
        figure.update_yaxes(title=UNITS[reading], type="log", row=1, col=column)
        if reading != "memory":
            figure.update_yaxes(tickvals=_TICKS, ticktext=_TICK_TEXTS, row=1, col=column)
    figure.update_xaxes(color=look.muted, gridcolor=look.rule, zeroline=False)
    figure.update_yaxes(color=look.muted, gridcolor=look.rule, zeroline=False)


def traces(points: Sequence[SweepPoint], *, with_names: bool, look: Theme) -> list[go.Scatter]:
    """Draw one panel: a line for each of what is compared, and crosses above all for what failed."""
    highest = max((point.value[2] for point in points if point.value), default=1.0)
    found = []
    for line in dict.fromkeys(point.line for point in points):
        mine = sorted((p for p in points if p.line == line), key=lambda point: point.length)
        colour = backend_colour(mine[0].backend)
        shared = {"name": plain(line), "legendgroup": plain(line), "hoverinfo": "text"}
        measured = [point for point in mine if point.value]
        found.append(_line(measured, colour) | shared | {"showlegend": with_names})
        if any(point.predicted is not None for point in mine):
            found.append(_predicted(mine, colour) | shared | {"showlegend": False})
        failed = [point for point in mine if not point.value]
        alone = with_names and not measured
        found.append(_failures(failed, highest, colour, look) | shared | {"showlegend": alone})
    return [go.Scatter(**trace) for trace in found]


def _line(points: list[SweepPoint], colour: str) -> dict[str, object]:
    taken = [point.value for point in points if point.value is not None]
    return {
        "x": [point.length for point in points],
        "y": [middle for middle, _, _ in taken],
        "error_y": {
            "array": [high - middle for middle, _, high in taken],
            "arrayminus": [middle - low for middle, low, _ in taken],
            "thickness": 1,
        },
        "mode": "lines+markers",
        "line": {"color": colour},
        "text": [plain(point.words) for point in points],
    }


def _predicted(points: list[SweepPoint], colour: str) -> dict[str, object]:
    known = [point for point in points if point.predicted is not None]
    return {
        "x": [point.length for point in known],
        "y": [point.predicted for point in known],
        "mode": "lines",
        "line": {"color": colour, "dash": "dot", "width": 1},
        "text": [plain(f"predicted: {point.words}") for point in known],
    }


def _failures(
    points: list[SweepPoint], height: float, colour: str, look: Theme
) -> dict[str, object]:
    """Above everything that was measured: a cross, for whom colour says nothing."""
    return {
        "x": [point.length for point in points],
        "y": [2 * height] * len(points),
        "mode": "markers",
        "marker": {"symbol": "x", "size": 9, "color": colour, "line": {"color": look.text}},
        "text": [plain(point.words) for point in points],
    }
