"""A key/value cache under requests: the block table, the pool slot by slot, bytes over time."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from attnscope.app.figures.theme import Theme, dressed, plain
from attnscope.profiling.units import count, nbytes

STATE_COLOURS = {
    "written": "#0072B2",
    "reserved": "#56B4E9",
    "never": "#D55E00",
    "unusable": "#CC79A7",
}
"""Of what held slots are; free ones have the ground's colour of masked cells."""
STATE_WORDS = {
    "written": "holds a token",
    "reserved": "held for a token to come",
    "never": "held, and never written",
    "unusable": "free, in pieces too short",
}
SCHEME_COLOURS = {"paged": "#009E73", "exact": "#E69F00", "longest": "#7A5195"}
_SCHEME_DASHES = {"paged": "solid", "exact": "dash", "longest": "dot"}
_NUMBERED = 24


def block_table(
    requests: Sequence[int],
    table: np.ndarray,
    lengths: np.ndarray,
    *,
    page: int,
    look: Theme,
    height: int = 360,
) -> go.Figure:
    """Draw the block table: a row a sequence, a cell a page, how full it is and where it lies.

    Args:
        requests: Whose rows they are.
        table: int `[sequences, pages]`, −1 past a row's last page.
        lengths: int `[sequences]`, tokens of each.
        page: Slots of a page.
        look: The colours.
        height: In pixels.
    """
    sequences, pages = table.shape
    filled = np.clip(lengths[:, None] - page * np.arange(pages)[None], 0, page) / page
    filled = np.where(table < 0, np.nan, filled)
    figure = go.Figure(
        go.Heatmap(
            z=filled,
            zmin=0,
            zmax=1,
            colorscale=[[0, "#C9D6E2"], [1, STATE_COLOURS["written"]]],
            xgap=1,
            ygap=1,
            showscale=False,
            hoverongaps=False,
            customdata=np.dstack([table, np.nan_to_num(filled) * page]),
            text=[[f"request {number}"] * pages for number in requests],
            hovertemplate="%{text}, its page %{x}: page %{customdata[0]} of the pool, "
            f"%{{customdata[1]:.0f}} of {page} slots written<extra></extra>",
        )
    )
    if pages <= _NUMBERED:
        row, column = np.nonzero(table >= 0)
        figure.add_scatter(
            x=column,
            y=row,
            text=table[row, column].astype(str),
            mode="text",
            textfont={
                "size": 11,
                "color": [
                    "#FFFFFF" if filled[at] > 0.5 else "#101418"
                    for at in zip(row, column, strict=True)
                ],
            },
            hoverinfo="skip",
        )
    dressed(figure, look=look, height=height)
    figure.update_layout(plot_bgcolor=look.masked, showlegend=False)
    figure.update_xaxes(title="page of the sequence", showgrid=False, dtick=max(1, pages // 12))
    figure.update_yaxes(
        title="request",
        tickvals=list(range(sequences))[:: max(1, sequences // 16)],
        ticktext=[str(number) for number in requests][:: max(1, sequences // 16)],
        autorange="reversed",
        showgrid=False,
    )
    return figure


def block_table_words(requests: Sequence[int], table: np.ndarray, lengths: np.ndarray) -> str:
    """The block table for who cannot see it."""
    rows = (
        f"request {number}: {count(int(length))} tokens in pages "
        f"{', '.join(str(one) for one in pages if one >= 0)}"
        for number, pages, length in zip(requests, table, lengths, strict=True)
    )
    return "; ".join(rows) or "No sequence is running."


def pool(
    owner: np.ndarray,
    state: np.ndarray,
    states: Sequence[str],
    *,
    width: int,
    look: Theme,
    height: int = 360,
) -> go.Figure:
    """Draw the pool, a cell a slot, in rows of `width` slots from the top left.

    Args:
        owner: int `[slots]`, the request that holds each, −1 where none does.
        state: int `[slots]`, places in `states`.
        states: The names of the states; "free" first.
        width: Slots of a row; a whole number of pages shows them best.
        look: The colours.
        height: In pixels.
    """
    missing = -len(owner) % width
    drawn = np.pad(state.astype(float), (0, missing), constant_values=np.nan).reshape(-1, width)
    owners = np.pad(owner, (0, missing), constant_values=-1).reshape(-1, width)
    colours = [STATE_COLOURS.get(name, look.masked) for name in states]
    steps = len(states)
    said = np.array([STATE_WORDS.get(name, name) for name in states])
    words = np.where(
        owners >= 0,
        np.char.add(
            np.char.add("request ", owners.astype(str)),
            np.char.add(": ", said[np.nan_to_num(drawn).astype(int)]),
        ),
        "free",
    )
    figure = go.Figure(
        go.Heatmap(
            z=drawn,
            zmin=-0.5,
            zmax=steps - 0.5,
            colorscale=[
                [edge / steps, colour] for at, colour in enumerate(colours) for edge in (at, at + 1)
            ],
            showscale=False,
            xgap=0.5,
            ygap=0.5,
            hoverongaps=False,
            text=words,
            hovertemplate="%{text}<extra></extra>",
        )
    )
    for name in states:
        if name in STATE_COLOURS:
            figure.add_scatter(
                x=[None],
                y=[None],
                mode="markers",
                name=STATE_WORDS[name],
                marker={"symbol": "square", "size": 10, "color": STATE_COLOURS[name]},
            )
    dressed(figure, look=look, height=height)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, autorange="reversed")
    return figure


def parts_over_time(
    parts: Mapping[str, np.ndarray], *, pool_bytes: int, look: Theme, height: int = 300
) -> go.Figure:
    """Draw what the slots of one scheme are, step by step, as areas up to the pool's size.

    Args:
        parts: Bytes at each step by state, in the order of `STATE_COLOURS`.
        pool_bytes: Of the whole pool.
        look: The colours.
        height: In pixels.
    """
    unit, word = _unit(pool_bytes)
    figure = go.Figure()
    for name, values in parts.items():
        figure.add_scatter(
            x=np.arange(len(values)),
            y=values / unit,
            name=STATE_WORDS[name],
            stackgroup="pool",
            line={"width": 0, "shape": "hv", "color": STATE_COLOURS[name]},
            fillcolor=STATE_COLOURS[name],
            hovertemplate=f"%{{y:.3g}} {word}<extra>%{{fullData.name}}</extra>",
        )
    figure.add_hline(y=pool_bytes / unit, line={"color": look.text, "width": 1, "dash": "dash"})
    figure.update_layout(hovermode="x unified")
    figure.update_xaxes(title="step")
    figure.update_yaxes(title=word, rangemode="tozero")
    return dressed(figure, look=look, height=height)


def schemes_over_time(
    held: Mapping[str, np.ndarray],
    written: Mapping[str, np.ndarray],
    *,
    pool_bytes: int,
    look: Theme,
    height: int = 300,
) -> go.Figure:
    """Draw what each scheme holds, step by step, and as a thin line what it has written.

    Args:
        held: Bytes at each step, by scheme.
        written: Likewise.
        pool_bytes: Of the whole pool.
        look: The colours.
        height: In pixels.
    """
    unit, word = _unit(pool_bytes)
    figure = go.Figure()
    for name, values in held.items():
        for kind, line, width in (("held", values, 2.5), ("written", written[name], 1)):
            figure.add_scatter(
                x=np.arange(len(line)),
                y=line / unit,
                name=f"{plain(name)}: {kind}",
                mode="lines",
                line={
                    "color": SCHEME_COLOURS.get(name, look.accent),
                    "width": width,
                    "dash": _SCHEME_DASHES.get(name, "solid"),
                    "shape": "hv",
                },
                hovertemplate=f"%{{y:.3g}} {word}<extra>%{{fullData.name}}</extra>",
            )
    figure.add_hline(y=pool_bytes / unit, line={"color": look.text, "width": 1, "dash": "dash"})
    figure.update_layout(hovermode="x unified")
    figure.update_xaxes(title="step")
    figure.update_yaxes(title=word, rangemode="tozero")
    return dressed(figure, look=look, height=height)


def schemes_words(
    held: Mapping[str, np.ndarray], written: Mapping[str, np.ndarray], *, pool_bytes: int
) -> str:
    """What the schemes hold for who cannot see it: means over their steps."""
    return "; ".join(
        f"{name}: {count(len(values))} steps, on the mean {nbytes(float(values.mean()))} held and "
        f"{nbytes(float(written[name].mean()))} written of {nbytes(pool_bytes)}"
        for name, values in held.items()
    )


def _unit(most: int) -> tuple[int, str]:
    names = ("B", "KiB", "MiB", "GiB", "TiB")
    power = min((max(most, 1).bit_length() - 1) // 10, len(names) - 1)
    return 1 << (10 * power), names[power]
