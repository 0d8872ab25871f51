"""The likeliest next tokens, with their probability in the model as it is and within a pattern."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from attnscope.app.figures.theme import Theme, dressed, framed, token_label

NAMES = ("as it is", "within the pattern")
_AFTER = "#D55E00"
_BAR = 15


def next_tokens(
    found: Sequence[tuple[str, float, float]],
    *,
    look: Theme,
    title: str = "",
    note: str = "",
    names: tuple[str, str] = NAMES,
) -> go.Figure:
    """Draw two bars a token.

    Args:
        found: Text and its two probabilities, the likeliest first.
        look: The colours.
        title: Plain text; with one the figure is framed for a file.
        note: Plain text.
        names: What the two are of.
    """
    figure = go.Figure()
    # Told apart by place, for two tokens may have the same label.
    places = list(range(len(found)))
    for at, (name, colour) in enumerate(zip(names, (look.muted, _AFTER), strict=True), start=1):
        figure.add_bar(
            x=[100 * float(each[at]) for each in found],
            y=places,
            orientation="h",
            name=name,
            marker={"color": colour},
            customdata=[token_label(each[0]) for each in found],
            hovertemplate=f"%{{customdata}}<br>%{{x:.3g}} % {name}<extra></extra>",
        )
    figure.update_layout(barmode="group", bargap=0.25, bargroupgap=0.05)
    figure.update_xaxes(title="probability, %", rangemode="tozero")
    labels = [
        f"{token_label(text, 14)}  {100 * before:.3g} → {100 * after:.3g}"
        for text, before, after in found
    ]
    figure.update_yaxes(tickvals=places, ticktext=labels, autorange="reversed", automargin=True)
    height = _BAR * 2 * len(found) + 90
    if not title:
        return dressed(figure, look=look, height=height).update_layout(margin_t=34)
    framed(figure, title=title, note=note, look=look)
    figure.update_layout(plot_bgcolor=look.ground, width=800, height=height + 180)
    return figure


def next_tokens_frame(found: Sequence[tuple[str, float, float]]) -> pd.DataFrame:
    """The probabilities as a table."""
    return pd.DataFrame(found, columns=["token", "before", "after"])
