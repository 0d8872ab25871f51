"""The runs as a table, and the filters above it."""

import hashlib
from collections.abc import Callable, Mapping, Sequence

import pandas as pd
import streamlit as st

from attnscope.app.views.runs import WHOSE, WIDGETS

_FILTERS = (
    ("model_title", "Model"),
    ("backend", "Backend"),
    ("phase", "Phase"),
    ("dtype", "dtype"),
    ("device_name", "Device"),
    ("outcome", "Outcome"),
)
_ROW, _MOST_ROWS = 30, 11
_COLUMNS = {
    "when": st.column_config.DatetimeColumn("when, UTC", format="YYYY-MM-DD HH:mm", width=128),
    "model": st.column_config.TextColumn(width=110),
    "backend": st.column_config.TextColumn(width=100),
    "phase": st.column_config.TextColumn(width=62),
    "batch": st.column_config.NumberColumn(width=52),
    "tokens": st.column_config.NumberColumn(width=62),
    "dtype": st.column_config.TextColumn(width=70),
    "median": st.column_config.NumberColumn("median, ms", format="%.2f", width=84),
    "p10 - p90": st.column_config.TextColumn("p10 - p90, ms", width=104),
    "tokens/s": st.column_config.NumberColumn(format="%.0f", width=74),
    "peak": st.column_config.NumberColumn("peak, MiB", format="%.1f", width=76),
    "kernel that ran": st.column_config.TextColumn(width=100),
    "to know": st.column_config.TextColumn(width=220),
    "device": st.column_config.TextColumn(width=120),
    "of": st.column_config.TextColumn("whose", width=76),
}


def runs_filters(
    choices: Mapping[str, Sequence[str]], *, with_whose: bool, on_change: Callable[[], None]
) -> None:
    """Draw the filters on one line; each fills its key of `views.runs.WIDGETS`."""
    search, *columns = st.columns([1.7, *[1] * (len(_FILTERS) + with_whose)], gap="small")
    search.text_input(
        "Search",
        key=WIDGETS["text"],
        placeholder="model, backend, device, reason …",
        on_change=on_change,
        max_chars=200,
    )
    for column, (name, title) in zip(columns, _FILTERS, strict=False):
        column.multiselect(
            title,
            choices[name],
            key=WIDGETS[name],
            placeholder="any",
            format_func=_spaced if name == "outcome" else str,
            on_change=on_change,
        )
    if with_whose:
        columns[-1].selectbox(
            "Whose",
            WHOSE,
            key=WIDGETS["whose"],
            on_change=on_change,
            help="Reference runs ship with Attnscope.",
        )


def runs_table(
    listed: pd.DataFrame,
    ids: Sequence[str],
    chosen: Sequence[str],
    *,
    on_choose: Callable[[str], None],
) -> None:
    """Draw the table; ticking rows chooses runs.

    Args:
        listed: The rows as shown.
        ids: Of the runs, in the order of the rows.
        chosen: Ids of those that are ticked.
        on_choose: Called with the key of the table when the ticks change.
    """
    # Ticks are of row numbers: other rows are another table.
    key = f"runs_table_{hashlib.sha256(','.join(ids).encode()).hexdigest()[:12]}"
    ticked = [at for at, run in enumerate(ids) if run in chosen]
    st.dataframe(
        listed,
        height=_ROW * (min(len(ids), _MOST_ROWS) + 1) + 3,
        row_height=_ROW,
        hide_index=True,
        column_config=_COLUMNS,
        key=key,
        on_select=lambda: on_choose(key),
        selection_mode="multi-row",
        selection_default={"selection": {"rows": ticked}},
        placeholder="-",
        alt=f"{len(ids)} measured runs, a row each; tick one to open it, several to compare them.",
    )


def _spaced(outcome: str) -> str:
    return outcome.replace("_", " ")
