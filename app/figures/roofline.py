"""Work done a second over work a byte, each cell a point under the ceilings of its device (Williams et al. 2009)."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log10

import plotly.graph_objects as go

from attnscope.app.figures.theme import Theme, backend_colour, dressed, plain

_SYMBOLS = {"prefill": "circle", "decode": "diamond"}
_SHAPES = {"prefill": "circles", "decode": "diamonds"}
_DASHES = ("solid", "dash", "dot")
_GIGA = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """The two ceilings that hold for a dtype.

    Attributes:
        name: The dtype, and whether they were measured or are listed.
        flops_per_second: Of arithmetic.
        bytes_per_second: Of memory.
    """

    name: str
    flops_per_second: float
    bytes_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Achieved:
    """One cell.

    Attributes:
        backend: Gives the colour.
        phase: Gives the symbol.
        intensity: FLOP a byte that must move.
        flops_per_second: What it reached.
        kernel: That ran; empty where nobody can say.
        words: Shown at the point: the cell, the kernel that ran, its share of the ceiling.
    """

    backend: str
    phase: str
    intensity: float
    flops_per_second: float
    kernel: str
    words: str


def roofline(
    points: Sequence[Achieved], ceilings: Sequence[Ceiling], *, look: Theme, height: int = 340
) -> go.Figure:
    """Draw the points, and above them the ceilings: memory where they slope, arithmetic where they are flat.

    Args:
        points: At least one.
        ceilings: Of the points; at least one.
        look: The colours.
        height: Of the figure, in pixels.
    """
    figure = go.Figure()
    ridges = [each.flops_per_second / each.bytes_per_second for each in ceilings]
    low = min(*(point.intensity for point in points), *ridges) / 2
    high = max(*(point.intensity for point in points), *ridges) * 2
    for dash, each, ridge in zip(_DASHES, ceilings, ridges, strict=False):
        tops = [each.bytes_per_second * low, each.flops_per_second, each.flops_per_second]
        figure.add_scatter(
            x=[low, ridge, high],
            y=[top / _GIGA for top in tops],
            mode="lines",
            name=plain(f"ceiling, {each.name}"),
            line={"color": look.text, "width": 1.5, "dash": dash},
            text=[
                f"memory: {each.bytes_per_second / _GIGA:.3g} GB/s",
                "where the two meet",
                f"arithmetic: {each.flops_per_second / _GIGA:.3g} GFLOP/s",
            ],
            hoverinfo="text",
        )
    for backend in dict.fromkeys(point.backend for point in points):
        mine = [point for point in points if point.backend == backend]
        figure.add_scatter(
            x=[point.intensity for point in mine],
            y=[point.flops_per_second / _GIGA for point in mine],
            mode="markers",
            name=plain(" · ".join([backend, *_kernels(mine)])),
            marker={
                "color": backend_colour(backend),
                "symbol": [_SYMBOLS.get(point.phase, "square") for point in mine],
                "size": 9,
                "line": {"color": look.ground, "width": 1},
            },
            text=[plain(point.words) for point in mine],
            hoverinfo="text",
        )
    shapes = ", ".join(
        f"{_SHAPES.get(phase, 'squares')} {phase}"
        for phase in dict.fromkeys(point.phase for point in points)
    )
    title = plain(f"FLOP a byte that must move; {shapes}")
    figure.update_xaxes(type="log", title=title, tickvals=_powers(low, high))
    figure.update_yaxes(type="log", title="GFLOP/s", exponentformat="none", dtick=1)
    return dressed(figure, look=look, height=height)


def _kernels(points: Sequence[Achieved]) -> list[str]:
    return list(dict.fromkeys(point.kernel for point in points if point.kernel))


def _powers(low: float, high: float) -> list[float]:
    return [10.0**power for power in range(floor(log10(low)), floor(log10(high)) + 1)]
