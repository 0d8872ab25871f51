"""Every head of every layer as one small map each."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from attnscope.app.figures.theme import SEQUENTIAL, Theme, colour_bar, framed, log_scaled

_GAP = 2
_LONGEST_SIDE = 1200


def overview(
    maps: np.ndarray, *, numbers: Sequence[int], title: str, note: str, look: Theme
) -> go.Figure:
    """Draw the grid of heads, layers down, heads across.

    Args:
        maps: float32 [layers, heads, rows, columns], pooled weights; NaN where masked.
        numbers: The model's own number of each layer.
        title: Plain text.
        note: Where the numbers come from, plain text.
        look: The colours.
    """
    small = _shrunk(maps)
    layers, heads, rows, columns = small.shape
    sheet = np.full(
        (layers * (rows + _GAP) - _GAP, heads * (columns + _GAP) - _GAP), np.nan, dtype=np.float32
    )
    for layer in range(layers):
        for head in range(heads):
            top, left = layer * (rows + _GAP), head * (columns + _GAP)
            sheet[top : top + rows, left : left + columns] = small[layer, head]
    drawn, decades = log_scaled(sheet)
    figure = go.Figure(
        go.Heatmap(
            z=drawn,
            colorscale=SEQUENTIAL,
            hoverinfo="skip",
            colorbar=colour_bar("attention weight", decades),
        )
    )
    figure.update_xaxes(
        title={"text": "head"},
        tickvals=[head * (columns + _GAP) + columns / 2 for head in range(heads)],
        ticktext=[str(head) for head in range(heads)],
        showgrid=False,
        zeroline=False,
        color=look.muted,
    )
    figure.update_yaxes(
        title={"text": "layer"},
        tickvals=[layer * (rows + _GAP) + rows / 2 for layer in range(layers)],
        ticktext=[str(number) for number in numbers],
        autorange="reversed",
        scaleanchor="x",
        constrain="domain",
        showgrid=False,
        zeroline=False,
        color=look.muted,
    )
    width = int(min(1400, max(640, 96 * heads + 160)))
    figure.update_layout(width=width, height=int(min(1400, max(420, 96 * layers + 200))))
    return framed(figure, title=title, note=note, look=look)


def _shrunk(maps: np.ndarray) -> np.ndarray:
    """Take each block's largest weight, so that the whole sheet stays under `_LONGEST_SIDE`."""
    layers, heads, rows, columns = maps.shape
    longest = max(layers * rows, heads * columns)
    step = -(-longest // _LONGEST_SIDE)
    if step == 1 or min(rows, columns) < step:
        return np.asarray(maps, dtype=np.float32)
    kept_rows, kept_columns = rows // step * step, columns // step * step
    blocks = np.asarray(maps[:, :, :kept_rows, :kept_columns], dtype=np.float32).reshape(
        layers, heads, kept_rows // step, step, kept_columns // step, step
    )
    filled = np.where(np.isnan(blocks), -np.inf, blocks).max(axis=(3, 5))
    return np.where(np.isinf(filled), np.nan, filled)
