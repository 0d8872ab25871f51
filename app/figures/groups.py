"""Grouped-query attention: who shares keys, how far their maps lie apart, what pooling cost."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from attnscope.app.figures.theme import SEQUENTIAL, Theme, colour_bar, dressed, plain, readable_on

GROUP_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B", "#56B4E9", "#7A5195")
"""Of neighbouring groups; they come again after the last, and lines tell the groups apart as well."""
_NUMBERED = 16


def group_layout(members: Sequence[Sequence[int]], *, look: Theme, height: int = 220) -> go.Figure:
    """Draw the query heads in a row, the kv heads under them, and who reads whom.

    Args:
        members: The query heads of each kv head, in order; at least one.
        look: The colours.
        height: In pixels.
    """
    figure = go.Figure()
    heads = sum(len(group) for group in members)
    for at, group in enumerate(members):
        colour = GROUP_COLOURS[at % len(GROUP_COLOURS)]
        middle = sum(group) / len(group)
        figure.add_scatter(
            x=[x for head in group for x in (head, middle, None)],
            y=[y for _ in group for y in (1, 0, None)],
            mode="lines",
            line={"color": colour, "width": 1.5},
            hoverinfo="skip",
        )
        figure.add_scatter(
            x=[*group, middle],
            y=[*(1 for _ in group), 0],
            mode="markers+text",
            marker={
                "symbol": [*("circle" for _ in group), "square"],
                "size": 26 if heads <= _NUMBERED else max(6, 400 // heads),
                "color": colour,
            },
            text=[*map(str, group), str(at)] if heads <= _NUMBERED else None,
            textfont={"color": "#FFFFFF", "size": 12},
            hovertext=[
                *(f"query head {head} reads kv head {at}" for head in group),
                f"kv head {at}, read by query heads {', '.join(map(str, group))}",
            ],
            hoverinfo="text",
        )
    figure.update_xaxes(visible=False, range=[-0.6, heads - 0.4])
    figure.update_yaxes(
        tickvals=[0, 1], ticktext=["kv heads", "query heads"], range=[-0.4, 1.4], showgrid=False
    )
    dressed(figure, look=look, height=height)
    figure.update_layout(showlegend=False, margin={"l": 84, "b": 12})
    return figure


def group_layout_words(members: Sequence[Sequence[int]]) -> str:
    """The groups for who cannot see them."""
    return "; ".join(
        f"kv head {at} is read by query heads {', '.join(map(str, group))}"
        for at, group in enumerate(members)
    )


def disagreement(
    apart: np.ndarray, *, measure: str, highest: float, look: Theme, height: int = 360
) -> go.Figure:
    """Draw how far the maps of every two heads of a group differ: blocks along the diagonal.

    Args:
        apart: float `[groups, heads of a group, heads of a group]`.
        measure: Its name, plain text.
        highest: Where the scale ends: two maps without a common key.
        look: The colours.
        height: In pixels.
    """
    groups, size, _ = apart.shape
    heads = groups * size
    sheet = np.full((heads, heads), np.nan)
    for group, block in enumerate(apart):
        part = slice(group * size, (group + 1) * size)
        sheet[part, part] = block
    figure = go.Figure(
        go.Heatmap(
            z=sheet,
            zmin=0,
            zmax=highest,
            colorscale=SEQUENTIAL,
            xgap=1,
            ygap=1,
            hoverongaps=False,
            colorbar=colour_bar(measure),
            hovertemplate=f"heads %{{y}} and %{{x}}<br>{plain(measure)} %{{z:.3f}}<extra></extra>",
        )
    )
    if heads <= _NUMBERED:
        row, column = np.nonzero(~np.isnan(sheet))
        found = sheet[row, column]
        figure.add_scatter(
            x=column,
            y=row,
            text=[f"{value:.2f}" for value in found],
            mode="text",
            textfont={"size": 10, "color": readable_on(found / highest)},
            hoverinfo="skip",
        )
    dressed(figure, look=look, height=height)
    figure.update_layout(plot_bgcolor=look.masked, showlegend=False)
    tick = max(1, heads // 12)
    figure.update_xaxes(title="query head", dtick=tick, showgrid=False, constrain="domain")
    figure.update_yaxes(
        title="query head", dtick=tick, showgrid=False, autorange="reversed", scaleanchor="x"
    )
    return figure


def disagreement_words(apart: np.ndarray, *, measure: str) -> str:
    """The blocks for who cannot see them: the mean over the pairs of each group."""
    size = apart.shape[1]
    if size == 1:
        return "Each head has keys of its own: there are no pairs to compare."
    pairs = ~np.eye(size, dtype=bool)
    return "; ".join(
        f"group {group}: mean {measure} {block[pairs].mean():.3f}, largest {block[pairs].max():.3f}"
        for group, block in enumerate(apart)
    )


def uptraining(
    curve: Sequence[tuple[int, float]],
    held_out: Mapping[str, float],
    *,
    look: Theme,
    height: int = 320,
) -> go.Figure:
    """Draw the training loss by step, and the held-out losses as lines with their names.

    Args:
        curve: Step and loss; empty where nothing was trained.
        held_out: Loss in nats a token by its name, such as "checkpoint", "pooled", "trained".
        look: The colours.
        height: In pixels.
    """
    figure = go.Figure()
    figure.add_scatter(
        x=[step for step, _ in curve],
        y=[loss for _, loss in curve],
        mode="lines",
        name="training rows",
        line={"color": look.accent, "width": 2},
        hovertemplate="step %{x}: %{y:.3f} nats<extra></extra>",
    )
    last = max((step for step, _ in curve), default=1)
    dashes = ("dash", "dot", "dashdot", "longdash")
    for at, (name, loss) in enumerate(held_out.items()):
        figure.add_scatter(
            x=[0, last],
            y=[loss, loss],
            mode="lines",
            name=f"{plain(name)}: {loss:.3f}",
            line={
                "color": GROUP_COLOURS[at % len(GROUP_COLOURS)],
                "dash": dashes[at % len(dashes)],
            },
            hovertemplate=f"{plain(name)}: %{{y:.3f}} nats a held-out token<extra></extra>",
        )
    figure.update_xaxes(title="step", rangemode="tozero")
    figure.update_yaxes(title="nats a token")
    return dressed(figure, look=look, height=height)
