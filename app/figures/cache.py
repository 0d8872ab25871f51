"""The KV cache over the steps of a generation: what was held, beside what was predicted."""

from collections.abc import Sequence

import plotly.graph_objects as go

from attnscope.app.figures.theme import Theme, dressed, framed

_HELD = "#0072B2"
_UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "bytes"))


def cache_growth(
    held: Sequence[int],
    predicted: Sequence[int] | None,
    *,
    look: Theme,
    title: str = "",
    note: str = "",
) -> go.Figure:
    """Draw the bytes after each step.

    Args:
        held: Measured, all entries of the cache together.
        predicted: By the calculator, for all the tokens that were asked for; None where there is none.
        look: The colours.
        title: Plain text; with one the figure is framed for a file.
        note: Plain text.
    """
    most = max([*held, *(predicted or ())])
    unit, word = next(each for each in _UNITS if most >= each[0] or each[0] == 1)
    figure = go.Figure()
    lines = [("held", held, {"color": _HELD, "width": 3})]
    if predicted is not None:
        # Over the other, so that it is seen where they are one.
        dashes = {"color": look.text, "width": 1.5, "dash": "dot"}
        lines.append(("predicted by the calculator", predicted, dashes))
    for name, values, line in lines:
        figure.add_scatter(
            x=list(range(1, len(values) + 1)),
            y=[value / unit for value in values],
            mode="lines" if len(values) > 1 else "markers",
            name=name,
            line=line,
            customdata=list(values),
            hovertemplate=f"%{{x}} tokens said<br>%{{customdata:,}} bytes {name}<extra></extra>",
        )
    figure.update_xaxes(title="tokens said")
    figure.update_yaxes(title=word, rangemode="tozero")
    if not title:
        return dressed(figure, look=look, height=240)
    framed(figure, title=title, note=note, look=look)
    return figure.update_layout(plot_bgcolor=look.ground, width=900, height=440)
