"""A prompt's tokens in reading order, coloured by the attention one token pays or receives."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from attnscope.app.figures.theme import SEQUENTIAL, Theme, framed, log_scaled, token_label

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
    labels = [token_label(token)[:18] for token in tokens] + [""] * (size - count)
    numbers = np.arange(size).reshape(lines, _ACROSS)
    drawn, decades = log_scaled(padded)
    figure = go.Figure(
        go.Heatmap(
            z=drawn.reshape(lines, _ACROSS),
            text=np.array(labels, dtype=object).reshape(lines, _ACROSS).tolist(),
            customdata=np.stack([numbers, padded.reshape(lines, _ACROSS)], axis=-1),
            texttemplate="%{text}",
            textfont={"size": 12},
            colorscale=SEQUENTIAL,
            xgap=2,
            ygap=2,
            hoverongaps=False,
            colorbar={
                "thickness": 10,
                "outlinewidth": 0,
                "tickvals": decades,
                "ticktext": [f"10<sup>{int(d)}</sup>" if d else "1" for d in decades],
                "title": {"text": "attention weight"},
            },
            hovertemplate=(
                "%{text}<br>position %{customdata[0]}, weight %{customdata[1]:.6g}<extra></extra>"
            ),
        )
    )
    for index in np.flatnonzero(np.isnan(padded[:count])):
        # Heatmaps leave out the text of empty cells; a masked token is still part of the text.
        figure.add_annotation(
            x=int(index) % _ACROSS,
            y=int(index) // _ACROSS,
            text=labels[index],
            showarrow=False,
            font={"size": 12, "color": look.muted},
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
    figure.update_layout(width=1200, height=180 + 30 * lines)
    return framed(figure, title=title, note=note, look=look)
