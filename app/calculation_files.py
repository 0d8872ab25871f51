"""A calculation's charts, and each of them, or the table, as a file."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from attnscope.app import calculation_words
from attnscope.app.calculator_view import OWN_DEVICE, CalculatorView
from attnscope.app.exports import TABLE_WRITERS, offline_html
from attnscope.app.figures.memory import (
    Curve,
    Part,
    bar_words,
    curve_words,
    memory_bar,
    memory_curves,
)
from attnscope.app.figures.theme import Theme
from attnscope.app.images import ImageServer
from attnscope.kernels.errors import InvalidCall

CHARTS = ("bar", "curves")
Answer = Mapping[str, Any]


def device_of(view: CalculatorView, devices: Answer) -> Mapping[str, Any]:
    """The device that a view names, out of the answer to the question `devices`.

    Raises:
        InvalidCall: None is called so.
    """
    if view.device == OWN_DEVICE:
        return view.own_device()
    for device in devices["devices"]:
        if device["name"] == view.device:
            return device
    raise InvalidCall(
        f"No device is called {view.device[:60]!r}.",
        "Choose one of the list, or describe your own.",
    )


def chart(
    what: str, view: CalculatorView, answer: Answer, curves: Answer, room: int, look: Theme
) -> tuple[go.Figure, str]:
    """Draw one of `CHARTS`, with its alternative text.

    Args:
        what: Which.
        view: What was asked.
        answer: Of the question `calculation`.
        curves: Of the question `curves`.
        room: Bytes there are.
        look: The colours.
    """
    title = calculation_words.title(view)
    style = {"memory_bytes": room, "title": title, "look": look}
    if what == "bar":
        parts = [Part(name=term["name"], nbytes=term["nbytes"]) for term in answer["terms"]]
        _, word, words = calculation_words.verdict(answer, room)
        return memory_bar(parts, note=f"{word}: {words}", **style), bar_words(parts)
    lines = [
        Curve(backend=line["name"], title=line["title"], totals=tuple(line["totals"]))
        for line in curves["lines"]
        if "totals" in line
    ]
    chosen = (view.backend, view.length, answer["total_bytes"])
    note = "Memory at the worst moment over length, by backend"
    figure = memory_curves(lines, curves["lengths"], chosen=chosen, note=note, **style)
    return figure, curve_words(lines, curves["lengths"])


def frame(what: str, answer: Answer, curves: Answer) -> pd.DataFrame:
    """The numbers of a chart: those of the bar are the table of terms."""
    if what == "bar":
        return pd.DataFrame(answer["terms"])
    totals = {line["name"]: line["totals"] for line in curves["lines"] if "totals" in line}
    return pd.DataFrame({"tokens": curves["lengths"], **totals})


def file(
    what: str,
    form: str,
    view: CalculatorView,
    answers: tuple[Answer, Answer],
    room: int,
    look: Theme,
    images: ImageServer,
) -> tuple[bytes, str]:
    """Write a chart, or its numbers, as a file.

    Args:
        what: One of `CHARTS`.
        form: A key of `exports.MEDIA_TYPES`.
        view: What was asked.
        answers: Of the questions `calculation` and `curves`.
        room: Bytes there are.
        look: The colours.
        images: The warm drawing browser.

    Returns:
        The bytes, and the file's name.

    Raises:
        ImagesUnavailable: PNG, SVG or PDF without Chromium on the server.
    """
    answer, curves = answers
    model = re.sub(r"[^A-Za-z0-9.-]+", "-", view.title).strip("-.")[:60] or "model"
    name = f"{model}_memory-{what}_{datetime.now(UTC):%Y%m%dT%H%M%SZ}.{form}"
    if form in TABLE_WRITERS:
        origin = {"title": calculation_words.title(view), "room_bytes": str(room)}
        return TABLE_WRITERS[form](frame(what, answer, curves), origin), name
    figure, words = chart(what, view, answer, curves, room, look)
    if form == "html":
        return offline_html(figure, title=calculation_words.title(view), note=words), name
    return images.draw(json.loads(str(figure.to_json())), form=form), name
