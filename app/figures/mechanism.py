"""What a mechanism costs over length, what was measured of it, and the candidates of an advisor."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from attnscope.app.figures.theme import Theme, backend_colour, dressed, plain
from attnscope.profiling.units import count, flop, latency, nbytes

Lines = Sequence[Mapping[str, Any]]
Reading = Literal["memory", "flops", "cache"]

READINGS: Mapping[Reading, tuple[str, Callable[[float], str]]] = {
    "memory": ("Extra memory of one layer", nbytes),
    "flops": ("Arithmetic of one layer", flop),
    "cache": ("Key/value cache of the model", nbytes),
}
"""Of each reading, what it is called and how its numbers are written."""
_DASHES = {"dense": "dot", "pairs": "dash", "everything": "dash"}
_HEIGHT = 350
_ROW, _AROUND = 24, 120  # of a candidate, and of what stands around them


def costs_figure(
    lines: Lines, lengths: Sequence[int], reading: Reading, *, look: Theme
) -> go.Figure:
    """Draw a cost over length on logarithmic axes, a line each; dense attention dotted.

    Args:
        lines: With the reading, a name, a title, and the backend where there is one.
        lengths: Tokens.
        reading: What is drawn.
        look: The colours.
    """
    _, written = READINGS[reading]
    figure = go.Figure()
    value = "memory" if reading == "cache" else reading
    for place, line in enumerate(lines):
        name = line.get("name", "mechanism" if place else "dense")
        figure.add_scatter(
            x=list(lengths),
            y=list(line[value]),
            name=plain(line["title"]),
            mode="lines+markers",
            marker={"size": 5},
            line={"color": _colour(line, name, look), "dash": _DASHES.get(name, "solid")},
            text=[
                f"{plain(line['title'])}, {count(n)} tokens: {written(found)}"
                for n, found in zip(lengths, line[value], strict=True)
            ],
            hoverinfo="text",
        )
    dressed(figure, look=look, height=_HEIGHT)
    _lengths_axis(figure, lengths)
    _amounts_axis(figure, [n for line in lines for n in line[value]], written)
    _legend_below(figure)
    return figure


def measured_figure(cells: Lines, *, look: Theme) -> go.Figure:
    """Draw the median time with its spread, and the memory held, over length, a line a call.

    Args:
        cells: As the job wrote them; those that failed are crosses.
        look: The colours.
    """
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.13)
    lengths = sorted({cell["length"] for cell in cells})
    for name in dict.fromkeys(cell["name"] for cell in cells):
        mine = [cell for cell in cells if cell["name"] == name and not cell["failure"]]
        if not mine:
            continue
        shared = {
            "x": [cell["length"] for cell in mine],
            "name": plain(call_words(mine[0])),
            "legendgroup": name,
            "mode": "lines+markers",
            "line": {"color": _colour(mine[0], name, look), "dash": _DASHES.get(name, "solid")},
            "hoverinfo": "text",
        }
        medians = [1e3 * cell["median_s"] for cell in mine]
        spread = {
            "array": [1e3 * cell["p90_s"] - at for cell, at in zip(mine, medians, strict=True)],
            "arrayminus": [
                at - 1e3 * cell["p10_s"] for cell, at in zip(mine, medians, strict=True)
            ],
            "thickness": 1,
        }
        times = [
            f"{plain(call_words(c))}: {latency(c['median_s'])}, {c['runs']} runs" for c in mine
        ]
        held = [f"{plain(call_words(c))}: {nbytes(c['peak_bytes'])}" for c in mine]
        figure.add_scatter(y=medians, error_y=spread, text=times, **shared, row=1, col=1)
        peaks = [cell["peak_bytes"] for cell in mine]
        figure.add_scatter(y=peaks, text=held, showlegend=False, **shared, row=1, col=2)
    dressed(figure, look=look, height=_HEIGHT)
    _lengths_axis(figure, lengths)
    figure.update_yaxes(type="log", title="milliseconds", col=1)
    peaks = [cell["peak_bytes"] for cell in cells if not cell["failure"]]
    _amounts_axis(figure, peaks or [1], nbytes, column=2)
    _legend_below(figure)
    return figure


def call_words(cell: Mapping[str, Any]) -> str:
    """Which call a cell is of: its backend, and over what."""
    return f"{cell['title']}, {cell['pattern']}"


def cost_words(lines: Lines, lengths: Sequence[int], reading: Reading) -> str:
    """The curves for who cannot see them."""
    words, written = READINGS[reading]
    value = "memory" if reading == "cache" else reading
    told = (
        f"{line['title']} {written(line[value][0])} at {count(lengths[0])} tokens, "
        f"{written(line[value][-1])} at {count(lengths[-1])}"
        for line in lines
    )
    return f"{words}: {'; '.join(told)}"


def _colour(line: Mapping[str, Any], name: str, look: Theme) -> str:
    if name == "pairs":
        return look.muted
    if line.get("backend"):
        return backend_colour(line["backend"])
    return look.muted if name == "dense" else look.accent


def _lengths_axis(figure: go.Figure, lengths: Sequence[int]) -> None:
    every = lengths[:: max(len(lengths) // 4, 1)]
    figure.update_xaxes(
        type="log", title="tokens", tickvals=list(every), ticktext=[count(n) for n in every]
    )


def _amounts_axis(
    figure: go.Figure,
    values: Sequence[float],
    written: Callable[[float], str],
    column: int | None = None,
) -> None:
    low, high = max(min(values), 1), max(max(values), 1)
    base = 10 if written is flop else 2
    first, last = int(np.log(low) / np.log(base)), int(np.log(high) / np.log(base)) + 1
    ticks = [base**power for power in range(first, last + 1, max((last - first) // 5, 1))]
    figure.update_yaxes(
        type="log", tickvals=ticks, ticktext=[written(tick) for tick in ticks], col=column
    )


def _legend_below(figure: go.Figure) -> None:
    figure.update_layout(
        legend={"y": -0.34, "yanchor": "top"}, margin={"l": 72, "r": 8, "t": 48, "b": 110}
    )


def prospects_figure(ranked: Lines, room_bytes: int, *, look: Theme) -> go.Figure:
    """Draw a row a candidate: its expected time, and its memory with the room as a line; both logarithmic.

    Args:
        ranked: The best first, which stands at the top.
        room_bytes: Bytes there are.
        look: The colours.
    """
    figure = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.04)
    titles = [plain(each["title"]) for each in ranked]
    marker = {
        "size": 11,
        "symbol": ["circle" if each["fits"] else "x" for each in ranked],
        "color": [backend_colour(each["key"]) for each in ranked],
        "line": {"width": [2] + [0] * (len(ranked) - 1), "color": look.text},
    }
    told = [
        f"{title}: {nbytes(each['nbytes'])}, {latency(each['expected_s'])}"
        for title, each in zip(titles, ranked, strict=True)
    ]
    sizes = [each["nbytes"] for each in ranked]
    for column, values in enumerate(([1e3 * each["expected_s"] for each in ranked], sizes), 1):
        figure.add_scatter(
            x=values,
            y=titles,
            mode="markers",
            marker=marker,
            text=told,
            hoverinfo="text",
            showlegend=False,
            row=1,
            col=column,
        )
    low, high = min(sizes), max(sizes)
    if room_bytes < 64 * high:
        line = {"color": look.text, "dash": "dash", "width": 1}
        ends = {"x0": room_bytes, "x1": room_bytes, "y0": 0, "y1": 1}
        figure.add_shape(type="line", xref="x2", yref="paper", line=line, **ends)
        high = max(high, room_bytes)
    ticks = [2**power for power in range(max(low, 1).bit_length() - 1, high.bit_length() + 1)]
    ticks = ticks[:: max(len(ticks) // 5, 1)]
    dressed(figure, look=look, height=_ROW * len(ranked) + _AROUND)
    figure.update_xaxes(type="log", title="milliseconds, expected", col=1)
    figure.update_xaxes(
        type="log",
        title="memory",
        tickvals=ticks,
        ticktext=[nbytes(tick) for tick in ticks],
        col=2,
    )
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_layout(margin_t=44)
    return figure
