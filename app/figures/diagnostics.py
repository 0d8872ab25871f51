"""Diagnostics over heads: one layers × heads grid for each, the number in every cell."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from attnscope.app.figures.theme import SEQUENTIAL, Theme, framed, plain, readable_on

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


def diagnostics(
    rows: Sequence[Diagnostic], *, layers: Sequence[int], title: str, note: str, look: Theme
) -> go.Figure:
    """Draw one grid for each diagnostic, layers down, heads across.

    Args:
        rows: At least one diagnostic, all of the same layers and heads.
        layers: The model's own number of each layer.
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
    heads = rows[0].values.shape[1]
    names_of_layers = [str(layer) for layer in layers]
    for index, row in enumerate(rows):
        line, column = index // _COLUMNS + 1, index % _COLUMNS + 1
        figure.add_trace(_grid(row, names[index], names_of_layers), row=line, col=column)
        if heads <= _NUMBERED_HEADS:
            figure.add_trace(_numbers(row, names_of_layers), row=line, col=column)
    figure.update_xaxes(showgrid=False, zeroline=False, color=look.muted, dtick=_tick(heads))
    figure.update_yaxes(
        showgrid=False,
        zeroline=False,
        color=look.muted,
        type="category",
        dtick=_tick(len(layers)),
        autorange="reversed",
    )
    figure.update_annotations(font={"size": 12})
    figure.update_layout(
        showlegend=False, width=1200, height=160 + lines * max(180, 26 * len(layers) + 80)
    )
    return framed(figure, title=title, note=note, look=look)


def _grid(row: Diagnostic, name: str, layers: list[str]) -> go.Heatmap:
    return go.Heatmap(
        z=np.asarray(row.values, dtype=float),
        y=layers,
        colorscale=SEQUENTIAL,
        showscale=False,
        xgap=1,
        ygap=1,
        hoverongaps=False,
        hovertemplate=f"layer %{{y}}, head %{{x}}<br>{name} %{{z:.4g}}<extra></extra>",
    )


def _numbers(row: Diagnostic, layers: list[str]) -> go.Scatter:
    layer, head = np.indices(row.values.shape).reshape(2, -1)
    values = np.asarray(row.values, dtype=float)
    seen = values[np.isfinite(values)]
    low, high = (seen.min(), seen.max()) if seen.size else (0.0, 1.0)
    shares = (values - low) / (high - low if high > low else 1)
    return go.Scatter(
        x=head,
        y=[layers[at] for at in layer],
        text=["" if np.isnan(value) else f"{value:.2g}" for value in values.ravel()],
        mode="text",
        textfont={"size": 10, "color": readable_on(shares)},
        hoverinfo="skip",
    )


def _tick(count: int) -> int:
    return max(1, count // 12)
