"""Cross-attention as a map: what each target token read of the source."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from attnscope.app.figures.theme import (
    SEQUENTIAL,
    Theme,
    colour_bar,
    dressed,
    readable_on,
    token_label,
)

_NUMBERED_CELLS = 144
_HOVER = "%{customdata[0]} read %{customdata[1]}<br>weight %{z:.4f}<extra></extra>"


def cross_map(
    weights: np.ndarray,
    *,
    said: Sequence[str],
    source: Sequence[str],
    look: Theme,
    height: int = 420,
) -> go.Figure:
    """Draw one head's weights: target tokens down, the source across.

    Args:
        weights: float `[target, source]`, each row a distribution.
        said: What each query said, user text.
        source: What each key is, user text.
        look: The colours.
        height: In pixels.
    """
    down, across = ([token_label(one) for one in names] for names in (said, source))
    named = np.array([[(one, other) for other in across] for one in down], dtype=object)
    figure = go.Figure(
        go.Heatmap(
            z=weights,
            zmin=0,
            zmax=1,
            colorscale=SEQUENTIAL,
            xgap=1,
            ygap=1,
            customdata=named,
            colorbar=colour_bar("attention weight"),
            hovertemplate=_HOVER,
        )
    )
    if weights.size <= _NUMBERED_CELLS:
        row, column = np.indices(weights.shape).reshape(2, -1)
        figure.add_scatter(
            x=column,
            y=row,
            text=[f"{value:.2f}" for value in weights.ravel()],
            mode="text",
            textfont={"size": 10, "color": readable_on(weights)},
            hoverinfo="skip",
        )
    dressed(figure, look=look, height=height)
    figure.update_layout(showlegend=False)
    figure.update_xaxes(
        title="source", tickvals=list(range(len(across))), ticktext=across, showgrid=False
    )
    figure.update_yaxes(
        title="said",
        tickvals=list(range(len(down))),
        ticktext=down,
        showgrid=False,
        autorange="reversed",
    )
    return figure


def cross_map_words(weights: np.ndarray, *, said: Sequence[str], source: Sequence[str]) -> str:
    """The map for who cannot see it: what each target token read most."""
    return "; ".join(
        f"{one} read {source[int(row.argmax())]} with weight {row.max():.2f}"
        for one, row in zip(said, weights, strict=True)
    )
