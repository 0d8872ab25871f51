"""Diagnostics over heads: one layers × heads grid for each, the number in every cell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from attnscope.app.figures.theme import SEQUENTIAL, Theme, framed, plain

_COLUMNS = 3
_NUMBERED_HEADS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostic:
    """One diagnostic of every head.

    Attributes:
        title: Its name.
        unit: Of its numbers; empty for a share.
        values: float [layers, heads]; NaN where it is not defined.
    """

    title: str
    unit: str
    values: np.ndarray


def diagnostics(rows: Sequence[Diagnostic], *, title: str, note: str, look: Theme) -> go.Figure:
    """Draw one grid for each diagnostic, layers down, heads across.

    Args:
        rows: At least one diagnostic, all of the same layers and heads.
        title: Plain text.
        note: Where the numbers come from, plain text.
        look: The colours.
    """
    lines = -(-len(rows) // _COLUMNS)
    names = [plain(f"{row.title}, {row.unit}" if row.unit else row.title) for row in rows]
    figure = make_subplots(
        rows=lines,
        cols=_COLUMNS,
        subplot_titles=names,
        horizontal_spacing=0.06,
        vertical_spacing=min(0.1, 0.5 / lines),
    )
    layers, heads = rows[0].values.shape
    for index, row in enumerate(rows):
        figure.add_trace(
            go.Heatmap(
                z=np.asarray(row.values, dtype=float),
                colorscale=SEQUENTIAL,
                showscale=False,
                xgap=1,
                ygap=1,
                hoverongaps=False,
                texttemplate="%{z:.2~g}" if heads <= _NUMBERED_HEADS else None,
                textfont={"size": 10},
                hovertemplate=(
                    f"layer %{{y}}, head %{{x}}<br>{names[index]} %{{z:.4g}}<extra></extra>"
                ),
            ),
            row=index // _COLUMNS + 1,
            col=index % _COLUMNS + 1,
        )
    figure.update_xaxes(showgrid=False, zeroline=False, color=look.muted, dtick=_tick(heads))
    figure.update_yaxes(
        showgrid=False,
        zeroline=False,
        color=look.muted,
        dtick=_tick(layers),
        autorange="reversed",
    )
    figure.update_annotations(font={"size": 12}, x=None)
    figure.update_layout(width=1200, height=160 + lines * max(180, 26 * layers + 70))
    return framed(figure, title=title, note=note, look=look)


def head_bars(values: Mapping[str, float], *, title: str, note: str, look: Theme) -> go.Figure:
    """Draw one head's diagnostics as horizontal bars.

    Args:
        values: Title to number, in display order.
        title: Plain text.
        note: Plain text.
        look: The colours.
    """
    figure = go.Figure(
        go.Bar(
            x=list(values.values()),
            y=[plain(name) for name in values],
            orientation="h",
            marker={"color": look.accent},
            texttemplate="%{x:.3g}",
            hovertemplate="%{y} %{x:.6g}<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed", color=look.text)
    figure.update_xaxes(color=look.muted, gridcolor=look.rule)
    figure.update_layout(width=720, height=140 + 28 * len(values))
    return framed(figure, title=title, note=note, look=look)


def _tick(count: int) -> int:
    return max(1, count // 12)
