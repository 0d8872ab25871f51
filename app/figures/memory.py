"""Where the memory goes: one bar of terms against the device."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from attnscope.app.figures.theme import Theme, framed, plain
from attnscope.profiling.units import nbytes

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
_PLACES = 1 << 10
_LEAST_LABELLED = 0.09  # of the width: room for a name


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One segment of the bar: a term's name and its bytes."""

    name: str
    nbytes: int


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
    has_wall, extent = extent_of(total, memory_bytes)
    figure = go.Figure()
    for part, colour in zip(parts, part_colours(parts), strict=True):
        share = part.nbytes / max(total, 1)
        figure.add_bar(
            x=[part.nbytes / unit],
            y=[""],
            orientation="h",
            name=plain(part.name),
            marker={"color": colour, "line": {"color": look.ground, "width": 1}},
            text=[
                f"{plain(part.name)}<br>{nbytes(part.nbytes)}"
                if part.nbytes / extent > _LEAST_LABELLED
                else ""
            ],
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
            textfont={"color": readable_on(colour)},
            constraintext="none",
            hovertemplate=f"{plain(part.name)}<br>{nbytes(part.nbytes)}, {100 * share:.3g} %<extra></extra>",
        )
    figure.update_layout(barmode="stack", bargap=0.35)
    if has_wall:
        at = memory_bytes / unit
        figure.add_vline(x=at, line={"color": look.text, "width": 2, "dash": "dash"})
        figure.add_annotation(
            text=wall_words(memory_bytes),
            showarrow=False,
            font={"color": look.text},
            x=at,
            y=1,
            yref="paper",
            xanchor="right",
            yanchor="top",
        )
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


def extent_of(total: int, memory_bytes: int) -> tuple[bool, int]:
    """Whether the device's memory is drawn beside the bar, and the bytes that the whole width is."""
    # A wall far away would leave nothing to see of the bar; then the sentence above says it.
    has_wall = memory_bytes <= 6 * total
    return has_wall, max(total, memory_bytes if has_wall else 0, 1)


def wall_words(memory_bytes: int) -> str:
    """What stands at the line of the device's memory."""
    return f"the device: {nbytes(memory_bytes)}"


def bar_words(parts: Sequence[Part]) -> str:
    """The bar for who cannot see it."""
    largest = sorted(parts, key=lambda part: -part.nbytes)
    return "; ".join(f"{part.name} {nbytes(part.nbytes)}" for part in largest)


def part_colours(parts: Sequence[Part]) -> list[str]:
    """A colour for each part, those of one kind in one family."""
    seen: Counter[str] = Counter()
    found = []
    for part in parts:
        kind = next((name for name in _HUES if part.name.startswith(name)), "")
        family = _HUES.get(kind, _OTHERS)
        found.append(family[seen[kind] % len(family)])
        seen[kind] += 1
    return found


def readable_on(colour: str) -> str:
    """The colour of text on this one."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    # Rec. 709 luma: dark text on what is light.
    return "#101418" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 120 else "#FFFFFF"


def _unit(total: int) -> tuple[int, str]:
    names = ("B", "KiB", "MiB", "GiB", "TiB")
    power = min((total.bit_length() - 1) // 10, len(names) - 1)
    return _PLACES**power, names[power]
