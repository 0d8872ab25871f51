"""What heads are worth: the loss without each, without ever more of them, and the change of every token's loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from attnscope.app.figures.theme import Theme, dressed, framed, plain, token_label

_WIDEST_CELL, _NARROWEST_CELL = 44, 11
_LABELLED = 30  # pixels of a square that its number fits in
_ACROSS = 16
_LINE = 28
_LEAST_TOP = 1e-3  # nats; below, a change is rounding, and must not fill the scale
_TICKS = (-1.0, -0.25, 0.0, 0.25, 1.0)  # of the largest change
_READABLE = 0.7  # of the scale's half, from where text is in the other shade


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadEffects:
    """A number of every head ablated alone, and of every layer.

    Attributes:
        values: float [layers, heads], 0 for no effect; NaN where a layer has no such head.
        whole: float [layers], of all heads of a layer at once.
        name: What the number is.
        chosen: Layer and head of those that are marked.
    """

    values: np.ndarray
    whole: np.ndarray
    name: str
    chosen: Sequence[tuple[int, int]] = ()


def scale_of(values: np.ndarray) -> float:
    """The largest change, which is the end of the scale."""
    known = np.abs(values[np.isfinite(values)])
    return max(float(known.max()) if known.size else 0.0, _LEAST_TOP)


def head_effects(
    found: HeadEffects, *, title: str, note: str, look: Theme, width: int | None = None
) -> go.Figure:
    """Draw a square a head, layers down and heads across, and apart from them one a layer.

    Args:
        found: The numbers.
        title: Plain text.
        note: Plain text.
        look: The colours.
        width: Pixels that the page has, without a frame; with title and note when None.
    """
    layers, heads = found.values.shape
    top = scale_of(found.values)
    cell = int(min(max(((width or 900) - 70) / (heads + 1.4), _NARROWEST_CELL), _WIDEST_CELL))
    spots = [
        (head, layer, layer, head, found.values[layer, head])
        for layer in range(layers)
        for head in range(heads)
        if not np.isnan(found.values[layer, head])
    ]
    spots += [(heads + 0.4, layer, layer, -1, value) for layer, value in enumerate(found.whole)]
    x, y, layer, head, value = zip(*spots, strict=True)
    shares = rooted(np.array(value), top)
    marked = [(one, at) in found.chosen for one, at in zip(layer, head, strict=True)]
    names = [
        f"layer {one}, head {at}" if at >= 0 else f"all heads of layer {one}"
        for one, at in zip(layer, head, strict=True)
    ]
    figure = go.Figure(
        go.Scatter(
            x=x,
            y=y,
            mode="markers+text" if cell >= _LABELLED else "markers",
            text=[_short(each) for each in value],
            textfont={"size": 10, "color": readable(shares, look)},
            customdata=list(zip(layer, head, names, value, strict=True)),
            marker={
                "symbol": "square",
                "size": cell - 3,
                "color": shares,
                "cmin": -1,
                "cmax": 1,
                "colorscale": diverging(look),
                "line": {"color": look.text, "width": [3 if each else 0 for each in marked]},
                "opacity": 1,
            },
            selected={"marker": {"opacity": 1}},
            unselected={"marker": {"opacity": 1}, "textfont": {"color": None}},
            hovertemplate=f"%{{customdata[2]}}<br>{plain(found.name)} %{{customdata[3]:+.4g}}"
            "<extra></extra>",
        )
    )
    step = -(-20 // cell)
    axis = {"showgrid": False, "zeroline": False, "color": look.muted, "fixedrange": True}
    ticks = [*range(0, heads, step), heads + 0.4]
    figure.update_xaxes(axis, title="head", range=[-0.6, heads + 1], tickvals=ticks)
    figure.update_xaxes(ticktext=[*map(str, range(0, heads, step)), "all"])
    figure.update_yaxes(axis, title="layer", range=[layers - 0.4, -0.6])
    figure.update_yaxes(tickvals=list(range(0, layers, step)))
    framed(figure, title=title, note=note, look=look)
    figure.update_layout(plot_bgcolor=look.ground, dragmode=False)
    if width is None:
        figure.update_traces(marker_showscale=True, marker_colorbar=_bar(found.name, top))
        figure.update_layout(width=cell * (heads + 2) + 260, height=cell * layers + 260)
        return figure
    figure.update_layout(title=None, annotations=[], font_size=12)
    figure.update_layout(width=int(cell * (heads + 1.6)) + 60, height=int(cell * layers) + 60)
    figure.update_layout(margin={"l": 46, "r": 10, "t": 4, "b": 40})
    figure.update_xaxes(title_font_size=12)
    return figure.update_yaxes(title_font_size=12)


def head_effects_frame(found: HeadEffects) -> pd.DataFrame:
    """The numbers as a table; a whole layer has no head."""
    layers, heads = found.values.shape
    rows: list[tuple[int, int | None, float]] = [
        (layer, head, float(found.values[layer, head]))
        for layer in range(layers)
        for head in range(heads)
        if not np.isnan(found.values[layer, head])
    ]
    rows += [(layer, None, float(value)) for layer, value in enumerate(found.whole)]
    frame = pd.DataFrame(rows, columns=["layer", "head", found.name.replace(" ", "_")])
    return frame.astype({"head": "Int64"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """The loss with ever more heads ablated together.

    Attributes:
        removed: How many, ascending from 0.
        losses: Nats a token with so many.
        order: The heads by name, in the order in which they go.
        rise: Nats that the loss may rise.
        spared: How many go before it has risen by more.
    """

    removed: Sequence[int]
    losses: Sequence[float]
    order: Sequence[str]
    rise: float
    spared: int


def removal_curve(found: Removal, *, look: Theme, title: str = "", note: str = "") -> go.Figure:
    """Draw the loss over the heads that are gone, with the rise that is tolerated.

    Args:
        found: The numbers.
        look: The colours.
        title: Plain text; with one the figure is framed for a file.
        note: Plain text.
    """
    last = ["none", *found.order]
    figure = go.Figure(
        go.Scatter(
            x=list(found.removed),
            y=list(found.losses),
            mode="lines+markers",
            line={"color": look.accent, "width": 2},
            marker={
                "size": [11 if at == found.spared else 5 for at in found.removed],
                "color": look.accent,
            },
            customdata=[plain(last[at]) for at in found.removed],
            hovertemplate="%{x} heads gone, the last %{customdata}<br>%{y:.4g} nats a token<extra></extra>",
        )
    )
    figure.add_hline(
        found.losses[0] + found.rise,
        line={"color": look.muted, "width": 1, "dash": "dot"},
        annotation={
            "text": f"{found.rise:g} nats above the model as it is",
            "font": {"size": 11, "color": look.muted},
            "yanchor": "bottom",
        },
        annotation_position="top right",
    )
    if title:
        framed(figure, title=title, note=note, look=look)
        figure.update_layout(plot_bgcolor=look.ground, width=900, height=520)
    else:
        dressed(figure, look=look, height=258)
    figure.update_xaxes(title_text="heads ablated together, the least missed first")
    return figure.update_yaxes(title_text="loss, nats a token", rangemode="tozero")


def removal_frame(found: Removal) -> pd.DataFrame:
    """The curve as a table, each with the head that went last."""
    last = ["", *found.order]
    return pd.DataFrame(
        {
            "heads_ablated": list(found.removed),
            "last": [last[at] for at in found.removed],
            "loss_nats": list(found.losses),
        }
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLosses:
    """A prompt's tokens, and how far the loss of each moved.

    Attributes:
        tokens: n tokens.
        scored: Positions of those that have a loss.
        before: Nats of each of these, of the model as it is.
        after: Without the heads.
        pinned: The position that is marked, or None.
    """

    tokens: Sequence[str]
    scored: Sequence[int]
    before: Sequence[float]
    after: Sequence[float]
    pinned: int | None = None

    @property
    def change_n(self) -> np.ndarray:
        """Nats by which each token's loss rose; NaN of those without one."""
        change_n = np.full(len(self.tokens), np.nan)
        change_n[list(self.scored)] = np.subtract(self.after, self.before)
        return change_n


def token_losses(found: TokenLosses, *, look: Theme, title: str = "", note: str = "") -> go.Figure:
    """Draw the tokens in lines of 16, red where the loss rose and blue where it fell.

    Args:
        found: The numbers.
        look: The colours.
        title: Plain text; with one the figure is framed for a file.
        note: Plain text.
    """
    count = len(found.tokens)
    lines = -(-count // _ACROSS)
    change_n, top = found.change_n, scale_of(found.change_n)
    shares = rooted(change_n, top)
    padded = np.full(lines * _ACROSS, np.nan)
    padded[:count] = shares
    figure = go.Figure(
        go.Heatmap(
            z=padded.reshape(lines, _ACROSS),
            colorscale=diverging(look),
            zmin=-1,
            zmax=1,
            xgap=2,
            ygap=2,
            hoverinfo="skip",
            showscale=bool(title),
            colorbar=_bar("nats", top),
        )
    )
    told = dict(zip(found.scored, zip(found.before, found.after, strict=True), strict=True))
    figure.add_scatter(
        x=[at % _ACROSS for at in range(count)],
        y=[at // _ACROSS for at in range(count)],
        text=[token_label(token, 9) for token in found.tokens],
        mode="markers+text",
        marker={"symbol": "square", "size": _LINE, "opacity": 0},
        selected={"marker": {"opacity": 0}},
        unselected={"marker": {"opacity": 0}, "textfont": {"color": None}},
        textfont={"size": 12, "color": readable(shares, look)},
        customdata=[[at, _told(told.get(at))] for at in range(count)],
        hovertemplate="position %{customdata[0]}<br>%{customdata[1]}<extra></extra>",
        showlegend=False,
    )
    if found.pinned is not None and found.pinned < count:
        line, column = divmod(found.pinned, _ACROSS)
        figure.add_shape(
            type="rect",
            x0=column - 0.5,
            x1=column + 0.5,
            y0=line - 0.5,
            y1=line + 0.5,
            line={"color": look.text, "width": 2},
        )
    if title:
        framed(figure, title=title, note=note, look=look)
        figure.update_layout(width=1200, height=200 + _LINE * lines)
    else:
        dressed(figure, look=look, height=_LINE * lines + 8)
        figure.update_layout(margin={"l": 0, "r": 0, "t": 4, "b": 4}, dragmode=False)
    figure.update_layout(plot_bgcolor=look.ground, hoverdistance=40)
    figure.update_xaxes(visible=False, fixedrange=True, range=[-0.55, _ACROSS - 0.45])
    return figure.update_yaxes(visible=False, fixedrange=True, range=[lines - 0.45, -0.55])


def token_losses_frame(found: TokenLosses) -> pd.DataFrame:
    """The losses as a table, a row a token that has one."""
    return pd.DataFrame(
        {
            "position": list(found.scored),
            "token": [found.tokens[at] for at in found.scored],
            "before_nats": list(found.before),
            "after_nats": list(found.after),
            "change_nats": np.subtract(found.after, found.before),
        }
    )


def rooted(values: np.ndarray, top: float) -> np.ndarray:
    """Places on the scale, −1 to 1: square roots, for the least of changes to be seen beside the largest."""
    return np.sign(values) * np.sqrt(np.minimum(np.abs(values) / top, 1.0))


def diverging(look: Theme) -> list[tuple[float, str]]:
    """Blue through the ground to red, the ends farthest from the ground: light in the dark theme."""
    ends = ["#2166AC", "#92C5DE", "#F4A582", "#B2182B"]
    if look.name == "dark":
        ends = ["#92C5DE", "#2166AC", "#B2182B", "#F4A582"]
    low, lower, higher, high = ends
    return [(0.0, low), (0.2, lower), (0.5, look.masked), (0.8, higher), (1.0, high)]


def readable(shares: np.ndarray, look: Theme) -> list[str]:
    """Choose the colour of text on that scale."""
    near, far = look.text, look.ground
    return [far if abs(each) > _READABLE else near for each in np.nan_to_num(shares)]


def _bar(name: str, top: float) -> dict[str, Any]:
    return {
        "thickness": 10,
        "outlinewidth": 0,
        "title": {"text": plain(name), "side": "right"},
        "tickvals": [float(rooted(np.array(each), 1.0)) for each in _TICKS],
        "ticktext": [f"{each * top:+.2g}" if each else "0" for each in _TICKS],
    }


def _told(losses: tuple[float, float] | None) -> str:
    if losses is None:
        return "not scored"
    before, after = losses
    return f"{before:.3f} to {after:.3f} nats, {after - before:+.3f}"


def _short(value: float) -> str:
    rounded = f"{value:.2f}".removeprefix("-")
    if rounded == "0.00":
        return "0"
    sign = "\N{MINUS SIGN}" if value < 0 else ""
    return sign + (rounded.removeprefix("0") if abs(value) < 1 else f"{abs(value):.1f}")
