"""A chart on a page, with its alternative text and its files: what Inspect's charts offer, of any figure."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from attnscope.app.exports import MEDIA_TYPES, TABLE_WRITERS, offline_html
from attnscope.app.figures import theme as themes
from attnscope.app.images import ImageServer

_CONFIG = {"displaylogo": False, "typesetMath": False, "displayModeBar": False}


def chart(
    figure: go.Figure, data: pd.DataFrame, *, name: str, title: str, note: str, page: str = "runs"
) -> None:
    """Draw a figure, and beside it the button that writes it as a file.

    Args:
        figure: The figure.
        data: Its numbers.
        name: Of the files, and of the widgets.
        title: Plain text.
        note: Alternative text, plain text.
        page: With which the files' names begin.
    """
    with st.container(key=f"chart_{name}", gap=None):
        st.plotly_chart(
            figure, theme=None, config=_CONFIG, key=f"plot_{name}", alt=f"{title}. {note}"
        )
        with st.popover("Export", key=f"export_{name}"):
            for form in MEDIA_TYPES:
                st.download_button(
                    form.upper(),
                    _writer(figure, data, form, title, note),
                    file_name=_file_name(page, name, form),
                    mime=MEDIA_TYPES[form],
                    key=f"export_{name}_{form}",
                    on_click="ignore",
                    width="stretch",
                )


def look() -> themes.Theme:
    """The colours of the theme that the visitor sees."""
    return themes.theme(str(st.context.theme.type))


def _writer(
    figure: go.Figure, data: pd.DataFrame, form: str, title: str, note: str
) -> Callable[[], bytes]:
    """What makes the file, once the visitor asks for it."""
    if form in TABLE_WRITERS:
        return partial(TABLE_WRITERS[form], data, {"title": title, "note": note})
    if form == "html":
        return partial(offline_html, figure, title=title, note=note)
    return lambda: _images().draw(json.loads(str(figure.to_json())), form=form)


@st.cache_resource(show_spinner=False)
def _images() -> ImageServer:
    return ImageServer()


def _file_name(page: str, name: str, form: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9.-]+", "-", name)
    return f"{page}_{safe}_{datetime.now(UTC):%Y%m%dT%H%M%SZ}.{form}"
