"""What the page Ablation shows: every head's worth, how many can go, and what the chosen ones did to the text."""

import html
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import streamlit as st

from attnscope.app.components.chart import file_name, files
from attnscope.app.components.plain_table import plain_table
from attnscope.app.components.sparsity_found import heading
from attnscope.app.figures.ablation import (
    HeadEffects,
    Removal,
    TokenLosses,
    head_effects,
    head_effects_frame,
    removal_curve,
    removal_frame,
    token_losses,
    token_losses_frame,
)
from attnscope.app.figures.next_tokens import next_tokens, next_tokens_frame
from attnscope.app.figures.theme import Theme
from attnscope.app.state import Key
from attnscope.app.words.ablation import ablated_rows, spared
from attnscope.profiling.units import count

Answer = Mapping[str, Any]

_PLOT = {"displaylogo": False, "displayModeBar": False, "typesetMath": False}
_GRID = 420
_NAMES = ("as it is", "without")
_MOST_TOKENS = 6
_TALLEST = 360


def grid_panel(
    found: Answer,
    *,
    measure: str,
    chosen: Sequence[tuple[int, int]],
    model: str,
    look: Theme,
    on_choose: Callable[[], None],
) -> None:
    """Draw a square a head, and one a layer; a click chooses.

    Args:
        found: Of the job `ablation_sweep`.
        measure: Of `views.ablation.MEASURES`.
        chosen: The heads that are marked.
        model: For the files' names.
        look: The colours.
        on_choose: Called when a square is clicked.
    """
    effects = effects_of(found, measure, chosen)
    known = effects.values[np.isfinite(effects.values)]
    title = f"{model}: {effects.name} of each head ablated alone"
    note = (
        f"from {known.min():+.3g} to {known.max():+.3g} nats, median {np.median(known):+.3g}, "
        f"{count(known.size)} heads"
    )
    st.plotly_chart(
        head_effects(effects, title=title, note=note, look=look, width=_GRID),
        theme=None,
        config=_PLOT,
        key=Key.ABLATION_GRID,
        width="content",
        on_select=on_choose,
        selection_mode="points",
        alt=f"{title}. {note}",
    )
    filed = head_effects(effects, title=title, note=note, look=look)
    data = head_effects_frame(effects)
    files(filed, data, name=f"heads-{measure}", title=title, note=note, of=model)


def effects_of(found: Answer, measure: str, chosen: Sequence[tuple[int, int]]) -> HeadEffects:
    """A sweep as a grid of numbers.

    Args:
        found: Of the job `ablation_sweep`.
        measure: Of `views.ablation.MEASURES`.
        chosen: The heads that are marked.
    """
    values = np.full((len(found["layers"]), 1 + max(each[1] for each in found["heads"])), np.nan)
    at, base = (0, found["loss"]) if measure == "loss" else (1, 0.0)
    for layer, head, *numbers in found["heads"]:
        values[layer, head] = numbers[at] - base
    whole = np.array([each[at] for each in found["layers"]]) - base
    name = "rise of the loss" if measure == "loss" else "KL"
    return HeadEffects(values=values, whole=whole, name=name, chosen=chosen)


def curve_panel(found: Answer, rise: float, *, model: str, look: Theme) -> None:
    """Draw the loss with ever more heads gone.

    Args:
        found: Of the job `ablation_sweep`.
        rise: Nats that it may rise.
        model: For the files' names.
        look: The colours.
    """
    removed, losses, _ = zip(*found["curve"], strict=True)
    removal = Removal(
        removed=removed,
        losses=losses,
        order=[f"{layer}.{head}" for layer, head in found["order"]],
        rise=rise,
        spared=spared(found, rise),
    )
    title = f"{model}: loss with ever more heads ablated, the least missed first"
    note = (
        f"{count(removal.spared)} of {count(len(removal.order))} go before it rises by more than "
        f"{rise:g} nats; with all gone it is {losses[-1]:.3f}, as it is {losses[0]:.3f}"
    )
    st.plotly_chart(
        removal_curve(removal, look=look),
        theme=None,
        config=_PLOT,
        key="ablation_curve",
        alt=f"{title}. {note}",
    )
    filed = removal_curve(removal, look=look, title=title, note=note)
    files(filed, removal_frame(removal), name="heads-gone", title=title, note=note, of=model)


def verdict(said: str, found: Answer, links: Sequence[tuple[str, str]], *, model: str) -> None:
    """Draw what became of the loss, the way to each head on Inspect, and the file of all of it.

    Args:
        said: In words.
        found: Of the job `ablation`.
        links: Heads by name, each with its address.
        model: For the file's name.
    """
    ways = "".join(
        f' <a href="{html.escape(address)}" target="_self">{html.escape(name)}</a>'
        for name, address in links
    )
    with st.container(key="ablation_verdict", horizontal=True, vertical_alignment="center"):
        st.html(
            f'<p class="pg-verdict" role="status">{html.escape(said)}'
            f" <span>On Inspect:{ways}</span></p>"
        )
        st.download_button(
            "Export JSON",
            json.dumps(found, ensure_ascii=False).encode,
            file_name=file_name(model, "ablation", "json"),
            mime="application/json",
            key="ablation_json",
            on_click="ignore",
        )


def numbers(found: Answer) -> None:
    """Draw what became of the model's predictions, as a table."""
    scored = len(found["scored"])
    plain_table(
        f"Over {count(scored)} token{'s' * (scored > 1)} of the text",
        ablated_rows(found),
        header=("", *_NAMES),
        numbers=True,
    )


def candidates(
    found: Answer, place: int, name: str, title: str, *, model: str, look: Theme
) -> None:
    """Draw the likeliest tokens at one position, with and without the heads.

    Args:
        found: Of the job `ablation`.
        place: Which of its positions.
        name: Of the chart and its files.
        title: Plain text.
        model: For the files' names.
        look: The colours.
    """
    tokens = [(text, before, after) for text, before, after, *_ in found["next"][place]]
    short = tokens[:_MOST_TOKENS]
    note = f"KL {found['kl'][place]:.4g} nats"
    whole = f"{model}: {title}"
    st.plotly_chart(
        next_tokens(short, look=look, names=_NAMES),
        theme=None,
        config=_PLOT,
        key=f"ablation_{name}",
        alt=f"{whole}. {note}",
    )
    filed = next_tokens(tokens, look=look, title=whole, note=note, names=_NAMES)
    files(filed, next_tokens_frame(tokens), name=name, title=whole, note=note, of=model)


def strip(
    losses: TokenLosses, *, said: str, model: str, look: Theme, on_choose: Callable[[], None]
) -> None:
    """Draw the text, each token lit by how far its loss moved; a click looks at its prediction.

    Args:
        losses: Of every token.
        said: What was done, plain text.
        model: For the files' names.
        look: The colours.
        on_choose: Called when a token is clicked.
    """
    heading("The text", "red where the loss rose, blue where it fell")
    most = int(np.nanargmax(losses.change_n))
    title = f"{model}: how far the loss of each token moved. {said}"
    note = f"most at position {most}, by {losses.change_n[most]:+.3g} nats"
    figure = token_losses(losses, look=look)
    is_tall = figure.layout.height > _TALLEST  # pyright: ignore[reportAttributeAccessIssue]
    with st.container(height=_TALLEST if is_tall else "content", border=False):
        st.plotly_chart(
            figure,
            theme=None,
            config=_PLOT,
            key=Key.ABLATION_TEXT,
            on_select=on_choose,
            selection_mode="points",
            alt=f"{title} {note}",
        )
    filed = token_losses(losses, look=look, title=title, note=note)
    data = token_losses_frame(losses)
    files(filed, data, name="token-losses", title=title, note=note, of=model)
