"""A chart on a page, with its alternative text and its files: what Inspect's charts offer, of any figure."""

import html
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from attnscope.app.figures import theme as themes
from attnscope.app.files.charts import MEDIA_TYPES, TABLE_WRITERS, offline_html
from attnscope.app.files.images import images

_CONFIG = {"displaylogo": False, "typesetMath": False, "displayModeBar": False}


def chart(
    figure: go.Figure,
    data: pd.DataFrame,
    *,
    name: str,
    title: str,
    note: str,
    of: str = "runs",
    exported: go.Figure | None = None,
    heading: str = "",
) -> None:
    """Draw a figure, and beside it the button that writes it as a file.

    Args:
        figure: The figure.
        data: Its numbers.
        name: Of the files, and of the widgets.
        title: Plain text.
        note: Alternative text, plain text.
        of: What the files' names begin with.
        exported: The figure as a file shows it; the same when None.
        heading: What stands over it, plain text; nothing where the figure says it itself.
    """
    with st.container(key=f"chart_{name}", gap=None):
        if heading:
            st.html(f'<div class="pg-heading"><h3>{html.escape(heading)}</h3></div>')
        st.plotly_chart(
            figure, theme=None, config=_CONFIG, key=f"plot_{name}", alt=f"{title}. {note}"
        )
        files(exported or figure, data, name=name, title=title, note=note, of=of)


def files(
    figure: go.Figure, data: pd.DataFrame, *, name: str, title: str, note: str, of: str = "runs"
) -> None:
    """Draw the button that writes a figure or its numbers as a file; arguments as for `chart`."""
    writers = {form: writer_of(figure, data, form, title, note) for form in MEDIA_TYPES}
    _files(writers, name=name, of=of)


def table_files(data: pd.DataFrame, *, name: str, title: str, note: str, of: str) -> None:
    """Draw the button that writes a table as a file; see `chart`."""
    origin = {"title": title, "note": note}
    writers = {form: partial(write, data, origin) for form, write in TABLE_WRITERS.items()}
    _files(writers, name=name, of=of)


def look() -> themes.Theme:
    """The colours of the theme that the visitor sees."""
    return themes.theme(str(st.context.theme.type))


def _files(writers: Mapping[str, Callable[[], bytes]], *, name: str, of: str) -> None:
    with st.popover("Export", key=f"export_{name}"):
        for form, write in writers.items():
            st.download_button(
                form.upper(),
                write,
                file_name=file_name(of, name, form),
                mime=MEDIA_TYPES[form],
                key=f"export_{name}_{form}",
                on_click="ignore",
                width="stretch",
            )


def writer_of(
    figure: go.Figure, data: pd.DataFrame, form: str, title: str, note: str
) -> Callable[[], bytes]:
    """What makes a chart's file, once it is asked for.

    Args:
        figure: The figure.
        data: Its numbers.
        form: A key of `exports.MEDIA_TYPES`.
        title: Plain text.
        note: Alternative text, plain text.
    """
    if form in TABLE_WRITERS:
        return partial(TABLE_WRITERS[form], data, {"title": title, "note": note})
    if form == "html":
        return partial(offline_html, figure, title=title, note=note)
    return lambda: images().draw(json.loads(str(figure.to_json())), form=form)


def file_name(of: str, name: str, form: str) -> str:
    """Name a file <of>_<name>_<UTC time>.<form>."""
    first, then = (re.sub(r"[^A-Za-z0-9.-]+", "-", part)[:60] for part in (of, name))
    return f"{first}_{then}_{datetime.now(UTC):%Y%m%dT%H%M%SZ}.{form}"
