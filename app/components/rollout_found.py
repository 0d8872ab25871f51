"""What the page Rollout shows: a sentence, the layers, the map of all tokens, the flow, and the table."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from attnscope.app.components.chart import files, table_files
from attnscope.app.components.sparsity_found import heading
from attnscope.app.figures.rollout import (
    Cells,
    cells_frame,
    flow_figure,
    rollout_map_figure,
    trail_figure,
)
from attnscope.app.figures.theme import Theme
from attnscope.app.words.rollout import flow_note, listed_note, map_note, stages, through, verdict

Answer = Mapping[str, Any]

_PLOT = {"displaylogo": False, "displayModeBar": False, "typesetMath": False}
_TABLE_HEIGHT = 384


def verdict_line(found: Answer, tokens: Sequence[str], links: Sequence[tuple[str, str]]) -> None:
    """Draw what was found in a sentence, and the heads that read the pair, which open in Inspect.

    Args:
        found: The answer to `rollout`.
        tokens: Of the prompt.
        links: Words and address of each head.
    """
    said = html.escape(verdict(found, tokens))
    opened = ", ".join(
        f'<a href="{html.escape(address)}" target="_self">{html.escape(words)}</a>'
        for words, address in links
    )
    inspect = (
        f"The head of each layer that reads most from there, in Inspect: {opened}." if links else ""
    )
    st.html(f'<p class="pg-verdict">{said}</p><p class="pg-note">{inspect}</p>')


def trail_panel(found: Answer, tokens: Sequence[str], *, model: str, look: Theme) -> None:
    """Draw the layers by tokens.

    Args:
        found: The answer to `rollout`.
        tokens: Of the prompt.
        model: For the files' names.
        look: The colours.
    """
    trail = Cells(
        values=np.array(found["trail"], float),
        edges=np.array(found["edges"]),
        rows=stages(found),
        tokens=tokens,
    )
    title = f"{model}: token {found['token']} layer by layer"
    note = verdict(found, tokens)
    with st.container(key="chart_rollout_trail", gap=None):
        heading("Layer by layer", "how its share spreads over the tokens")
        st.plotly_chart(
            trail_figure(trail, look=look),
            theme=None,
            config=_PLOT,
            key="rollout_trail_plot",
            alt=f"{title}. {note}",
        )
        filed = trail_figure(trail, look=look, title=title, note=note)
        files(filed, cells_frame(trail), name="rollout-layers", title=title, note=note, of=model)


def map_panel(
    found: Answer, layers: Sequence[int], tokens: Sequence[str], *, model: str, look: Theme
) -> None:
    """Draw the rollout of every token.

    Args:
        found: The answer to `rollout_map`.
        layers: That were passed.
        tokens: Of the prompt.
        model: For the files' names.
        look: The colours.
    """
    cells = Cells(
        values=np.array(found["values"], float),
        edges=np.array(found["column_edges"]),
        rows=np.array(found["row_edges"]),
        tokens=tokens,
    )
    title, note = f"{model}: rollout {through(layers).lower()}", map_note(found)
    with st.container(key="chart_rollout_map", gap=None):
        heading("Every token", note)
        st.plotly_chart(
            rollout_map_figure(cells, look=look, height=384),
            theme=None,
            config=_PLOT,
            key="rollout_map_plot",
            alt=f"{title}. {note}",
        )
        filed = rollout_map_figure(cells, look=look, title=title, note=note, height=760)
        first = Cells(
            values=cells.values,
            edges=cells.edges,
            rows=np.array(found["row_edges"])[:-1],
            tokens=tokens,
        )
        files(filed, cells_frame(first), name="rollout-map", title=title, note=note, of=model)


def flow_panel(
    flow: Answer, found: Answer, tokens: Sequence[str], *, model: str, look: Theme
) -> None:
    """Draw the flow beside the rollout.

    Args:
        flow: The answer to `rollout_flow`.
        found: The answer to `rollout`.
        tokens: Of the prompt.
        model: For the files' names.
        look: The colours.
    """
    start, flows = flow["start"], flow["values"]
    shares = dict(zip(found["positions"], found["shares"], strict=True))
    beside = [shares.get(start + at, 0.0) for at in range(len(flows))]
    part = tokens[start : start + len(flows)]
    title, note = f"{model}: flow and rollout of token {flow['token']}", flow_note(flow)
    drawn = {"flows": flows, "shares": beside, "tokens": part, "start": start, "look": look}
    st.plotly_chart(
        flow_figure(**drawn),
        theme=None,
        config=_PLOT,
        key="rollout_flow_plot",
        alt=f"{title}. {note}",
    )
    data = pd.DataFrame(
        {
            "position": range(start, start + len(flows)),
            "token": part,
            "rollout": beside,
            "flow": flows,
        }
    )
    filed = flow_figure(**drawn, title=title, note=note)
    files(filed, data, name="rollout-flow", title=title, note=note, of=model)


def table_panel(found: Answer, flow: Answer | None, tokens: Sequence[str], *, model: str) -> None:
    """Draw every token with its shares; the largest first.

    Args:
        found: The answer to `rollout`.
        flow: The answer to `rollout_flow`, or None.
        tokens: Of the prompt.
        model: For the files' names.
    """
    frame = pd.DataFrame(
        {
            "position": found["positions"],
            "token": [tokens[at] for at in found["positions"]],
            "rollout": found["shares"],
            "last_layer": found["alone"],
        }
    )
    if flow is not None:
        flows = {flow["start"] + at: value for at, value in enumerate(flow["values"])}
        frame["flow"] = [flows.get(at) for at in found["positions"]]
    frame = frame.sort_values("rollout", ascending=False, kind="stable")
    note = listed_note(found)
    with st.container(key="chart_rollout_table", gap=None):
        heading("The numbers", note)
        st.dataframe(
            frame,
            height=_TABLE_HEIGHT,
            hide_index=True,
            column_config=_COLUMNS,
            key="rollout_table",
            placeholder="",
            alt=f"Rollout of token {found['token']}: {note}",
        )
        title = f"{model}: rollout of token {found['token']}"
        table_files(frame, name="rollout", title=title, note=note, of=model)


_COLUMNS = {
    "position": st.column_config.NumberColumn("at", width=48, help="Position."),
    "token": st.column_config.TextColumn(width=96),
    "rollout": st.column_config.NumberColumn(
        format="%.4f", width=66, help="Through all the layers that are passed."
    ),
    "last_layer": st.column_config.NumberColumn(
        "last layer", format="%.4f", width=66, help="The weights of the highest layer alone."
    ),
    "flow": st.column_config.NumberColumn(
        format="%.4f", width=66, help="The most that could flow through the layers, in the window."
    ),
}
