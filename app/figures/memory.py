"""Where the memory goes: one bar of terms against the device, and curves over length, a line a backend."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import log10

import plotly.graph_objects as go

from attnscope.app.figures.theme import Theme, backend_colour, framed, plain
from attnscope.profiling.units import count, nbytes

_HUES = {
    "weights": ("#0072B2",),
    "buffers": ("#56B4E9",),
    "master weights": ("#3B5B92",),
    "optimiser": ("#7A5195",),
    "gradients": ("#CC79A7",),
    "key/value cache": ("#009E73",),
    "attention": ("#D55E00", "#B22222"),
    "activations": ("#E69F00", "#F2C14E", "#C77F00", "#F6D98B", "#9A6A1F", "#D9B26F"),
}
"""Of each kind of term, by how its name begins; those of one kind stand in one family."""
_OTHERS = ("#808890",)
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_PLACES = 1 << 10
_ABOVE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One segment of the bar: a term's name and its bytes."""

    name: str
    nbytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Memory over length of one backend: its name, its title and bytes at each length."""

    backend: str
    title: str
    totals: tuple[int, ...]


def memory_bar(
    parts: Sequence[Part], *, memory_bytes: int, title: str, note: str, look: Theme
) -> go.Figure:
    """Draw the terms at the worst moment as one stacked bar, with the device's memory as a line.

    Args:
        parts: In the order of the table.
        memory_bytes: The room on the device.
        title: Plain text.
        note: Where the numbers come from, plain text.
        look: The colours.
    """
    total = sum(part.nbytes for part in parts)
    unit, word = _unit(max(total, 1))
    # A wall far away would leave nothing to see of the bar; then the sentence above says it.
    has_wall = memory_bytes <= 6 * total
    extent = max(total, memory_bytes if has_wall else 0, 1)
    figure = go.Figure()
    for part, colour in zip(parts, _colours(parts), strict=True):
        share = part.nbytes / max(total, 1)
        figure.add_bar(
            x=[part.nbytes / unit],
            y=[""],
            orientation="h",
            name=plain(part.name),
            marker={"color": colour, "line": {"color": look.ground, "width": 1}},
            text=[
                f"{plain(part.name)}<br>{nbytes(part.nbytes)}"
                if part.nbytes / extent > 0.09
                else ""
            ],
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
            textfont={"color": _readable_on(colour)},
            constraintext="none",
            hovertemplate=f"{plain(part.name)}<br>{nbytes(part.nbytes)}, {100 * share:.3g} %<extra></extra>",
        )
    figure.update_layout(barmode="stack", bargap=0.35)
    if has_wall:
        _wall(figure, memory_bytes / unit, nbytes(memory_bytes), look, upright=True)
    figure.update_yaxes(visible=False)
    figure.update_xaxes(
        title=f"{word} at the worst moment", color=look.muted, gridcolor=look.rule, zeroline=False
    )
    framed(figure, title=title, note=note, look=look)
    figure.update_layout(
        plot_bgcolor=look.ground,
        height=400,
        margin_t=150,
        title={"y": 0.97, "yanchor": "top", "yref": "container"},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "traceorder": "normal"},
    )
    return figure


def memory_curves(
    curves: Sequence[Curve],
    lengths: Sequence[int],
    *,
    memory_bytes: int,
    chosen: tuple[str, int, int],
    title: str,
    note: str,
    look: Theme,
) -> go.Figure:
    """Draw memory over length on logarithmic axes, with the wall and the place that is chosen.

    Args:
        curves: One a backend.
        lengths: Tokens, of every curve.
        memory_bytes: The room on the device.
        chosen: The backend, length and bytes that are shown above.
        title: Plain text.
        note: Where the numbers come from, plain text.
        look: The colours.
    """
    figure = go.Figure()
    for place, curve in enumerate(curves):
        figure.add_scatter(
            x=list(lengths),
            y=list(curve.totals),
            name=plain(curve.title),
            mode="lines",
            line={
                "color": backend_colour(curve.backend),
                "width": 3 if curve.backend == chosen[0] else 1.5,
                "dash": _DASHES[place % len(_DASHES)],
            },
            text=[
                f"{plain(curve.title)}, {count(length)} tokens: {nbytes(total)}"
                for length, total in zip(lengths, curve.totals, strict=True)
            ],
            hoverinfo="text",
        )
    figure.add_scatter(
        x=[chosen[1]],
        y=[chosen[2]],
        mode="markers",
        marker={"size": 10, "color": look.text, "symbol": "circle-open", "line": {"width": 2}},
        text=[f"chosen: {count(chosen[1])} tokens, {nbytes(chosen[2])}"],
        hoverinfo="text",
        name="chosen",
        showlegend=False,
    )
    _wall(figure, memory_bytes, nbytes(memory_bytes), look, upright=False)
    highest = max((max(curve.totals) for curve in curves), default=memory_bytes)
    lowest = min([chosen[2], memory_bytes, *(min(curve.totals) for curve in curves)])
    # Dense attention leaves every device far below: what lies much above the wall is cut off.
    top = max(chosen[2], memory_bytes, min(highest, _ABOVE * memory_bytes))
    ticks = _powers(lowest, top)
    figure.update_xaxes(
        type="log",
        title="tokens",
        tickvals=list(lengths)[::2],
        ticktext=[count(length) for length in lengths[::2]],
    )
    figure.update_yaxes(
        type="log",
        range=[log10(lowest * 0.8), log10(top * 1.25)],
        tickvals=ticks,
        ticktext=[nbytes(tick) for tick in ticks],
    )
    for axis in (figure.update_xaxes, figure.update_yaxes):
        axis(color=look.muted, gridcolor=look.rule, zeroline=False)
    framed(figure, title=title, note=note, look=look)
    figure.update_layout(plot_bgcolor=look.ground, height=460)
    return figure


def bar_words(parts: Sequence[Part]) -> str:
    """The bar for who cannot see it."""
    largest = sorted(parts, key=lambda part: -part.nbytes)
    return "; ".join(f"{part.name} {nbytes(part.nbytes)}" for part in largest)


def curve_words(curves: Sequence[Curve], lengths: Sequence[int]) -> str:
    """The curves for who cannot see them: each backend at the first and the last length."""
    return "; ".join(
        f"{curve.title}: {nbytes(curve.totals[0])} at {count(lengths[0])} tokens, "
        f"{nbytes(curve.totals[-1])} at {count(lengths[-1])}"
        for curve in curves
    )


def _colours(parts: Sequence[Part]) -> list[str]:
    seen: Counter[str] = Counter()
    found = []
    for part in parts:
        kind = next((name for name in _HUES if part.name.startswith(name)), "")
        family = _HUES.get(kind, _OTHERS)
        found.append(family[seen[kind] % len(family)])
        seen[kind] += 1
    return found


def _readable_on(colour: str) -> str:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    # Rec. 709 luma: dark text on what is light.
    return "#101418" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 120 else "#FFFFFF"


def _wall(figure: go.Figure, at: float, words: str, look: Theme, *, upright: bool) -> None:
    line = {"color": look.text, "width": 2, "dash": "dash"}
    said = {"text": f"the device: {words}", "showarrow": False, "font": {"color": look.text}}
    if upright:
        figure.add_vline(x=at, line=line)
        figure.add_annotation(x=at, y=1, yref="paper", xanchor="right", yanchor="top", **said)
    else:
        figure.add_hline(y=at, line=line)
        # An annotation of a logarithmic axis stands at the logarithm.
        y = log10(max(at, 1))
        figure.add_annotation(x=0.01, xref="paper", y=y, xanchor="left", yanchor="bottom", **said)


def _unit(total: int) -> tuple[int, str]:
    names = ("B", "KiB", "MiB", "GiB", "TiB")
    power = min((total.bit_length() - 1) // 10, len(names) - 1)
    return _PLACES**power, names[power]


def _powers(lowest: int, highest: int) -> list[int]:
    first, last = max(lowest, 1).bit_length() - 1, highest.bit_length()
    step = max((last - first) // 7, 1)
    return [2**power for power in range(first, last + 1, step)]
