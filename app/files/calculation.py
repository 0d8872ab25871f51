"""A calculation's charts, and each of them, or its numbers, as a file."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from attnscope.app.figures.length_curves import (
    DASHES,
    Curve,
    Quantity,
    curve_words,
    length_curves,
)
from attnscope.app.figures.memory import Part, bar_words, memory_bar, wall_words
from attnscope.app.figures.theme import Theme
from attnscope.app.files.charts import TABLE_WRITERS, offline_html
from attnscope.app.files.images import ImageServer
from attnscope.app.views.calculator import OWN_DEVICE, CalculatorView
from attnscope.app.words import calculation as calculation_words
from attnscope.kernels.errors import InvalidCall
from attnscope.profiling.units import latency, nbytes

Answer = Mapping[str, Any]
_VALUES = {"memory": "totals", "time": "seconds", "cost": "costs"}
"""The charts over length, and where the worker's answer holds their values."""
CHARTS = ("bar", *_VALUES)
_FILES = {
    "bar": "memory-bar",
    "memory": "memory-over-length",
    "time": "time-over-length",
    "cost": "cost-over-length",
}
_NOTES = {
    "memory": "Memory at the worst moment over length, by backend",
    "time": "Least time of one pass over length, by backend: roofline, from the listed peaks",
    "cost": "Least cost of a million tokens over length, by backend: roofline, from the listed peaks",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Calculated:
    """A view, and all that the worker says of it.

    Attributes:
        view: What was asked.
        device: As the question `devices` describes it.
        one: Of the question `calculation`.
        reach: Of the question `reach`.
        curves: Of the question `curves`.
        contenders: Of the question `contenders`.
    """

    view: CalculatorView
    device: Answer
    one: Answer
    reach: Answer
    curves: Answer
    contenders: Answer

    @property
    def room(self) -> int:
        """Bytes there are for the model."""
        return self.view.room(self.device)

    @property
    def title(self) -> str:
        """What was calculated, in a line."""
        return calculation_words.title(self.view)

    @property
    def charts(self) -> tuple[str, ...]:
        """Those of `CHARTS` that have numbers: without a peak there is no time, without a price no cost."""
        done = self.one["work"]
        return ("bar", "memory", *["time"] * ("seconds" in done), *["cost"] * ("cost" in done))


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


def chart(what: str, found: Calculated, look: Theme) -> tuple[go.Figure, str]:
    """Draw one of `CHARTS`, with its alternative text.

    Args:
        what: Which.
        found: What is drawn.
        look: The colours.

    Raises:
        InvalidCall: It has no numbers.
    """
    if what not in found.charts:
        raise InvalidCall(
            f"There is no {what} to draw.",
            f"Choose a dtype with a published peak on {found.view.device}, and for a cost a price.",
        )
    style: dict[str, Any] = {"title": found.title, "look": look}
    if what == "bar":
        parts = [Part(name=term["name"], nbytes=term["nbytes"]) for term in found.one["terms"]]
        _, word, words = calculation_words.verdict(found.one, found.room)
        figure = memory_bar(parts, note=f"{word}: {words}", memory_bytes=found.room, **style)
        return figure, bar_words(parts)
    quantity = _quantity(what, found.room)
    lines, lengths = curves_of(what, found), found.curves["lengths"]
    chosen = (found.view.backend, found.view.length, _here(what, found.one))
    figure = length_curves(lines, lengths, quantity, chosen=chosen, note=_NOTES[what], **style)
    return figure, curve_words(lines, lengths, quantity.words)


def curves_of(what: str, found: Calculated) -> list[Curve]:
    """The lines of a chart over length; a backend's is drawn alike on each."""
    return [
        Curve(
            backend=line["name"],
            title=line["title"],
            values=tuple(line[_VALUES[what]]),
            dash=DASHES[place % len(DASHES)],
        )
        for place, line in enumerate(found.curves["lines"])
        if "totals" in line
    ]


def _quantity(what: str, room: int) -> Quantity:
    if what == "memory":
        return Quantity(title="", words=nbytes, base=2, wall=room, wall_words=wall_words(room))
    words: Callable[[float], str] = latency if what == "time" else calculation_words.cost_words
    return Quantity(title="", words=words)


def _here(what: str, one: Answer) -> float:
    if what == "memory":
        return one["total_bytes"]
    return one["work"]["seconds" if what == "time" else "cost"]


def frame(what: str, found: Calculated) -> pd.DataFrame:
    """The numbers of a chart: those of the bar are the table of terms."""
    if what == "bar":
        return pd.DataFrame(found.one["terms"])
    values = {curve.backend: curve.values for curve in curves_of(what, found)}
    return pd.DataFrame({"tokens": found.curves["lengths"], **values})


def file(
    what: str, form: str, found: Calculated, look: Theme, images: ImageServer
) -> tuple[bytes, str]:
    """Write a chart, or its numbers, as a file.

    Args:
        what: One of `CHARTS`.
        form: A key of `exports.MEDIA_TYPES`.
        found: What is written.
        look: The colours.
        images: The warm drawing browser.

    Returns:
        The bytes, and the file's name.

    Raises:
        InvalidCall: It has no numbers.
        ImagesUnavailable: PNG, SVG or PDF without Chromium on the server.
    """
    figure, words = chart(what, found, look)
    model = re.sub(r"[^A-Za-z0-9.-]+", "-", found.view.title).strip("-.")[:60] or "model"
    name = f"{model}_{_FILES[what]}_{datetime.now(UTC):%Y%m%dT%H%M%SZ}.{form}"
    if form in TABLE_WRITERS:
        origin = {"title": found.title, "room_bytes": str(found.room)}
        return TABLE_WRITERS[form](frame(what, found), origin), name
    if form == "html":
        return offline_html(figure, title=found.title, note=words), name
    return images.draw(json.loads(str(figure.to_json())), form=form), name
