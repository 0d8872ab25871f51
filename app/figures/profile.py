"""What one cell of a profile is made of: its parts layer by layer, its memory over time, its kernels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from attnscope.app.figures.theme import Theme, dressed, plain

PART_COLOURS = {
    "embedding": "#999999",
    "attention": "#0072B2",
    "mlp": "#E69F00",
    "norm": "#009E73",
    "head": "#CC79A7",
}
KIND_COLOURS = {
    "weights": "#8A93A0",
    "kv_cache": "#56B4E9",
    "activations": "#009E73",
    "workspace": "#E69F00",
    "scores": "#D55E00",
}
_MEBI = 2**20
_NAME_CHARACTERS = 44


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Time of one module.

    Attributes:
        kind: embedding, attention, mlp, norm or head.
        layer: Its layer, from 0; None outside the layers.
        milliseconds: Median.
    """

    kind: str
    layer: int | None
    milliseconds: float


def parts(found: Sequence[Part], *, look: Theme, height: int = 300) -> go.Figure:
    """Draw a bar a layer, stacked by what the time went to; what lies outside the layers at the ends.

    Args:
        found: In the model's own order; at least one.
        look: The colours.
        height: In pixels.
    """
    figure = go.Figure()
    for kind, colour in PART_COLOURS.items():
        mine: dict[str, float] = {}
        for part in found:
            if part.kind == kind:
                place = kind if part.layer is None else f"layer {part.layer}"
                mine[place] = mine.get(place, 0.0) + part.milliseconds
        if mine:
            bar = {"x": list(mine), "y": list(mine.values()), "name": kind}
            figure.add_trace(go.Bar(**bar, marker={"color": colour}, hovertemplate=_HOVER_MS))
    layers = dict.fromkeys(
        f"layer {part.layer}" if part.layer is not None else part.kind for part in found
    )
    figure.update_layout(barmode="stack", bargap=0.25)
    figure.update_xaxes(categoryorder="array", categoryarray=list(layers))
    figure.update_yaxes(title="ms")
    return dressed(figure, look=look, height=height)


def timeline(
    kinds: Sequence[str],
    seconds: Sequence[float],
    nbytes: Sequence[Sequence[int]],
    *,
    look: Theme,
    height: int = 300,
) -> go.Figure:
    """Draw memory over one run, an area a kind.

    Args:
        kinds: What the columns are.
        seconds: Since the run began, a moment a row; watching slows the run, so these order moments only.
        nbytes: A row a moment, a column a kind.
        look: The colours.
        height: In pixels.
    """
    figure = go.Figure()
    for kind, colour in KIND_COLOURS.items():
        column = kinds.index(kind) if kind in kinds else None
        if column is None or not any(row[column] for row in nbytes):
            continue
        figure.add_trace(
            go.Scatter(
                x=[1e3 * moment for moment in seconds],
                y=[row[column] / _MEBI for row in nbytes],
                name=kind.replace("kv_cache", "KV cache"),
                stackgroup="memory",
                line={"width": 0, "shape": "hv", "color": colour},
                fillcolor=colour,
                hovertemplate="%{y:.3g} MiB<extra>%{fullData.name}</extra>",
            )
        )
    figure.update_layout(hovermode="x unified")
    figure.update_xaxes(title="ms into the watched run")
    figure.update_yaxes(title="MiB", rangemode="tozero")
    return dressed(figure, look=look, height=height)


def kernels(
    names: Sequence[str], shares: Sequence[float], *, look: Theme, height: int = 300
) -> go.Figure:
    """Draw a bar a kernel, or on a CPU an operator, that of most time at the top.

    Args:
        names: As the profiler tells them.
        shares: Of the time of all of them, 0 to 1.
        look: The colours.
        height: In pixels.
    """
    labels = [plain(_cut(name)) for name in names]
    figure = go.Figure(
        go.Bar(
            x=[100 * share for share in shares],
            y=labels,
            orientation="h",
            marker={"color": look.accent},
            text=[plain(name) for name in names],
            textposition="none",
            hovertemplate="%{x:.3g} % %{text}<extra></extra>",
        )
    )
    figure.update_xaxes(title="% of the time of all", rangemode="tozero")
    figure.update_yaxes(autorange="reversed", automargin=True)
    return dressed(figure, look=look, height=height)


def cache(
    tokens: Sequence[int],
    lines: Mapping[str, Sequence[int]],
    measured: Sequence[tuple[int, int]],
    *,
    look: Theme,
    height: int = 340,
) -> go.Figure:
    """Draw how the cache grows: what is predicted as lines, what was measured as points.

    Args:
        tokens: Of a sequence, ascending.
        lines: Bytes at each, by the way they are kept.
        measured: Tokens and bytes; may be none.
        look: The colours.
        height: In pixels.
    """
    figure = go.Figure()
    styles = (
        {"color": KIND_COLOURS["kv_cache"]},
        {"color": KIND_COLOURS["scores"], "shape": "hv"},
        {"color": look.muted, "dash": "dot"},
    )
    for (name, held), style in zip(lines.items(), styles, strict=False):
        figure.add_scatter(
            x=list(tokens),
            y=[each / _MEBI for each in held],
            name=plain(name),
            mode="lines",
            line={"width": 1.5, **style},
            hovertemplate="%{y:.3g} MiB at %{x} tokens<extra>%{fullData.name}</extra>",
        )
    if measured:
        figure.add_scatter(
            x=[at for at, _ in measured],
            y=[held / _MEBI for _, held in measured],
            name="measured",
            mode="markers",
            marker={"color": look.text, "symbol": "circle-open", "size": 8},
            hovertemplate="%{y:.3g} MiB at %{x} tokens<extra>measured</extra>",
        )
    figure.update_xaxes(title="tokens of each sequence", rangemode="tozero")
    figure.update_yaxes(title="MiB", rangemode="tozero")
    return dressed(figure, look=look, height=height)


_HOVER_MS = "%{y:.3g} ms<extra>%{fullData.name}, %{x}</extra>"


def _cut(name: str) -> str:
    return name if len(name) <= _NAME_CHARACTERS else f"{name[: _NAME_CHARACTERS - 1]}…"
