"""Measured runs as charts: time and memory over length, the samples of one run, its memory over time."""

import math
from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from attnscope.app.figures.sweep import UNITS, Reading, SweepPoint, traces
from attnscope.app.figures.theme import Theme, framed, plain

KIND_COLOURS = {
    "weights": "#8A94A0",
    "kv_cache": "#0072B2",
    "scores": "#D55E00",
    "activations": "#56B4E9",
    "workspace": "#C9A227",
}
"""What memory is taken for; apart in lightness too."""

_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
_FEWEST_TICKS = 3
_ROW, _FRAME = 250, 176


def over_length(
    latencies: Sequence[SweepPoint],
    memories: Sequence[SweepPoint],
    *,
    title: str,
    note: str,
    look: Theme,
) -> go.Figure:
    """Draw median time above peak memory, a column a phase.

    Args:
        latencies: In milliseconds, at least one.
        memories: In MiB, of the same phases; may be none.
        title: Plain text.
        note: Where the numbers come from, plain text.
        look: The colours.
    """
    phases = list(dict.fromkeys(point.phase for point in latencies))
    titles = [f"{phase}, {what}" for what in ("time", "peak memory") for phase in phases]
    figure = make_subplots(
        rows=2,
        cols=len(phases),
        shared_xaxes=True,
        subplot_titles=[plain(each) for each in titles],
        vertical_spacing=0.13,
        horizontal_spacing=0.07,
    )
    lengths = sorted({point.length for point in latencies})
    named: set[str] = set()
    dashes = _dashes(latencies)
    drawn: tuple[tuple[Sequence[SweepPoint], Reading], ...] = (
        (latencies, "latency"),
        (memories, "memory"),
    )
    for row, (points, reading) in enumerate(drawn, start=1):
        for column, phase in enumerate(phases, start=1):
            here = [point for point in points if point.phase == phase]
            for trace in traces(here, with_names=True, look=look):
                name = str(trace.name)
                # One colour is one backend: its other lines are told apart by their dashes. And
                # a line has one entry in the legend, wherever it is seen first.
                is_first = bool(trace.x) and name not in named
                trace.update(line_dash=dashes[name], showlegend=is_first)
                named |= {name} if is_first else set()
                figure.add_trace(trace, row=row, col=column)
            axis = {"type": "log", "tickvals": lengths, "row": row, "col": column}
            figure.update_xaxes(title="tokens" if row == 2 else None, **axis)
            ticks = _ticks([each for point in here for each in point.value or ()])
            axis = {"type": "log", "tickvals": ticks, "row": row, "col": column}
            figure.update_yaxes(title=UNITS[reading] if column == 1 else None, **axis)
    figure.update_annotations(font={"size": 13, "color": look.muted}, xanchor="center")
    return _drawn(figure, rows=2, title=title, note=note, look=look)


def samples(
    seconds: Sequence[float],
    cuts: tuple[float, float, float],
    *,
    title: str,
    note: str,
    look: Theme,
) -> go.Figure:
    """Draw the time of each run in the order they ran, over the band of most of them.

    Args:
        seconds: At least one.
        cuts: 10th percentile, median and 90th percentile, seconds.
        title: Plain text.
        note: Where the numbers come from, plain text.
        look: The colours.
    """
    low, median, high = (1e3 * cut for cut in cuts)
    figure = go.Figure(
        go.Scatter(
            x=list(range(1, len(seconds) + 1)),
            y=[1e3 * each for each in seconds],
            mode="markers",
            marker={"color": look.accent, "size": 7},
            hovertemplate="run %{x}: %{y:.3g} ms<extra></extra>",
            showlegend=False,
        )
    )
    figure.add_hrect(y0=low, y1=high, fillcolor=look.accent, opacity=0.12, line_width=0)
    figure.add_hline(y=median, line={"color": look.accent, "width": 1.5})
    figure.update_xaxes(title="run", tick0=1, dtick=math.ceil(len(seconds) / 12))
    figure.update_yaxes(title="ms", rangemode="tozero")
    return _drawn(figure, rows=1, title=title, note=note, look=look)


def memory_over_time(
    kinds: Sequence[str],
    seconds: Sequence[float],
    nbytes: Sequence[Sequence[int]],
    *,
    title: str,
    note: str,
    look: Theme,
) -> go.Figure:
    """Draw memory by what it is for over one run, stacked.

    Args:
        kinds: What it is for.
        seconds: Moments, ascending.
        nbytes: For each moment the bytes of each kind.
        title: Plain text.
        note: Where the numbers come from, plain text.
        look: The colours.
    """
    figure = go.Figure()
    for kind, held in zip(kinds, zip(*nbytes, strict=True), strict=True):
        name = plain(kind.replace("_", " "))
        figure.add_scatter(
            x=[1e3 * moment for moment in seconds],
            y=[each / 2**20 for each in held],
            name=name,
            stackgroup="memory",
            mode="lines",
            # Held until it changes: memory has no slopes.
            line={"width": 0.5, "shape": "hv", "color": KIND_COLOURS.get(kind, look.muted)},
            hovertemplate=f"{name}: %{{y:.3g}} MiB at %{{x:.3g}} ms<extra></extra>",
        )
    figure.update_xaxes(title="ms")
    figure.update_yaxes(title="MiB", rangemode="tozero")
    return _drawn(figure, rows=1, title=title, note=note, look=look)


def _dashes(points: Sequence[SweepPoint]) -> dict[str, str]:
    """The dash of each line, by its name in the figure: solid for the first of a backend."""
    lines: dict[str, list[str]] = {}
    for point in points:
        of_backend = lines.setdefault(point.backend, [])
        if point.line not in of_backend:
            of_backend.append(point.line)
    return {
        plain(line): _DASHES[at % len(_DASHES)]
        for of_backend in lines.values()
        for at, line in enumerate(of_backend)
    }


def _ticks(values: Sequence[float]) -> list[float]:
    """Round numbers for a logarithmic axis, as few as still tell how it runs."""
    positive = [value for value in values if value > 0]
    if not positive:
        return []
    low, high = min(positive) / 1.5, max(positive) * 2.5
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        ticks = [float(f"{step}e{decade}") for decade in decades for step in steps]
        found = [tick for tick in ticks if low <= tick <= high]
        if len(found) >= _FEWEST_TICKS:
            break
    return found


def _drawn(figure: go.Figure, *, rows: int, title: str, note: str, look: Theme) -> go.Figure:
    framed(figure, title=title, note=note, look=look)
    axes = {"color": look.muted, "gridcolor": look.rule, "zeroline": False}
    figure.update_xaxes(**axes, title={"font": {"size": 13}, "standoff": 4})
    figure.update_yaxes(**axes, title={"font": {"size": 13}, "standoff": 8})
    figure.update_layout(
        plot_bgcolor=look.ground,
        height=_ROW * rows + _FRAME,
        margin={"l": 64, "r": 16, "t": 56, "b": 120},
        legend={
            "orientation": "h",
            "x": 0,
            "y": 68 / (_ROW * rows + _FRAME),
            "yref": "container",
            "yanchor": "top",
        },
    )
    return figure
