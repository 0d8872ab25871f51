"""A prompt's tokens in reading order, coloured by the attention one token pays or receives."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from attnscope.app.figures.theme import (
    SEQUENTIAL,
    Theme,
    colour_bar,
    framed,
    log_scaled,
    readable_on,
    token_label,
)

_ACROSS = 16


def token_strip(
    tokens: Sequence[str],
    weights: np.ndarray,
    *,
    title: str,
    note: str,
    look: Theme,
    pinned: int | None = None,
) -> go.Figure:
    """Draw the tokens in lines of 16, each cell coloured by its weight.

    Args:
        tokens: n tokens.
        weights: float32 [n]; NaN where the pinned token does not see.
        title: Plain text.
        note: Where the numbers come from, plain text.
        look: The colours.
        pinned: Position of the token whose attention it is, outlined; None for no outline.
    """
    count = len(tokens)
    lines = -(-count // _ACROSS)
    size = lines * _ACROSS
    padded = np.full(size, np.nan, dtype=np.float32)
    padded[:count] = weights
    labels = [token_label(token, 11) for token in tokens]
    numbers = np.arange(size).reshape(lines, _ACROSS)
    drawn, decades = log_scaled(padded)
    figure = go.Figure(
        go.Heatmap(
            z=drawn.reshape(lines, _ACROSS),
            customdata=np.stack([numbers, padded.reshape(lines, _ACROSS)], axis=-1),
            colorscale=SEQUENTIAL,
            zmin=decades[0],
            zmax=decades[-1],
            xgap=2,
            ygap=2,
            hoverongaps=False,
            colorbar=colour_bar("attention weight", decades),
            hovertemplate=("position %{customdata[0]}, weight %{customdata[1]:.6g}<extra></extra>"),
        )
    )
    low, high = float(decades[0]), max(float(decades[-1]), float(decades[0]) + 1)
    figure.add_trace(
        go.Scatter(
            x=[index % _ACROSS for index in range(count)],
            y=[index // _ACROSS for index in range(count)],
            text=labels,
            mode="text",
            textfont={"size": 12, "color": readable_on((drawn[:count] - low) / (high - low))},
            hoverinfo="skip",
        )
    )
    if pinned is not None and pinned < count:
        column, line = pinned % _ACROSS, pinned // _ACROSS
        figure.add_shape(
            type="rect",
            x0=column - 0.5,
            x1=column + 0.5,
            y0=line - 0.5,
            y1=line + 0.5,
            line={"color": look.accent, "width": 2},
        )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, autorange="reversed")
    figure.update_layout(showlegend=False, width=1200, height=180 + 30 * lines)
    return framed(figure, title=title, note=note, look=look)
