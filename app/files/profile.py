"""Every chart of a profile as a figure, as a file, and as the table of its numbers."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from textwrap import wrap
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from attnscope.app.figures import profile as figures
from attnscope.app.figures.roofline import Achieved, Ceiling, roofline
from attnscope.app.figures.sweep import Reading, over_length
from attnscope.app.figures.theme import Theme, framed, plain, theme
from attnscope.app.files.charts import TABLE_WRITERS
from attnscope.app.files.images import ImageServer
from attnscope.app.files.offline import offline_html
from attnscope.app.files.profile_points import points_of
from attnscope.app.words.profile import OF_ALL, TITLES, achieved, cache_lines, cache_measured

Found = Mapping[str, Any]

_WIDTH, _HEIGHT, _NOTE_CHARACTERS = 960, 600, 150


def figure_of(what: str, found: Found, detail: Found, *, look: Theme) -> go.Figure | None:
    """Draw a chart as the page shows it.

    Args:
        what: A key of `TITLES`.
        found: The answer to `profile`.
        detail: The answer to `profile_detail` for the cell; empty for a chart of all.
        look: The colours.

    Returns:
        None where there is nothing to draw.
    """
    return _FIGURES[what](found, detail, look)


def frame_of(what: str, found: Found, detail: Found) -> pd.DataFrame:
    """The numbers of a chart as a table; see `figure_of`."""
    return _FRAMES[what](found, detail)


def export(
    what: str,
    form: str,
    found: Found,
    detail: Found,
    *,
    cell: str = "",
    dark: bool = False,
    images: ImageServer | None = None,
) -> bytes:
    """Write a chart or its numbers as a file; see `figure_of`.

    Args:
        what: A key of `TITLES`.
        form: A key of `exports.MEDIA_TYPES`.
        found: The answer to `profile`.
        detail: The answer to `profile_detail`.
        cell: What the chart is of, in words; empty for a chart of all.
        dark: Whether it is drawn on a dark ground.
        images: The warm drawing browser.

    Raises:
        ImagesUnavailable: PNG, SVG or PDF without Chromium on the server.
    """
    title = ", ".join(filter(None, [f"{found['model']['title']}: {TITLES[what].lower()}", cell]))
    note = found["provenance"]
    if form in TABLE_WRITERS:
        return TABLE_WRITERS[form](frame_of(what, found, detail), {"title": title, "from": note})
    look = theme("dark" if dark else "light")
    figure = figure_of(what, found, detail, look=look) or go.Figure()
    framed(figure, title=title, note="", look=look)
    lines = "<br>".join(map(plain, wrap(note, _NOTE_CHARACTERS)))
    figure.update_annotations(text=lines, align="left")  # the note is the only one
    size = {"width": _WIDTH, "height": _HEIGHT, "margin": {"t": 104, "b": 160}}
    figure.update_layout(plot_bgcolor=look.ground, title_y=0.96, **size)
    if form == "html":
        figure.update_layout(width=None)
        return offline_html(figure, title=title, note=note)
    drawing = json.loads(str(figure.to_json()))
    if images is not None:
        return images.draw(drawing, form=form)
    with ImageServer() as alone:
        return alone.draw(drawing, form=form)


def filename(title: str, what: str, ending: str, now: datetime | None = None) -> str:
    """Name a file <model>_profile-<what>_<UTC time>.<ending>."""
    model = re.sub(r"[^A-Za-z0-9.-]+", "-", title).strip("-.")[:60]
    time = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
    return f"{model or 'model'}_profile-{what}_{time}.{ending}"


def _over_length(reading: Reading) -> Callable[[Found, Found, Theme], go.Figure | None]:
    def figure(found: Found, detail: Found, look: Theme) -> go.Figure | None:
        points = points_of(found["records"], reading)
        # Crosses alone would say that something was measured.
        is_told = reading in ("latency", "memory") or any(point.value for point in points)
        return over_length(points, reading, look=look, height=340) if is_told else None

    return figure


def _roofline(found: Found, detail: Found, look: Theme) -> go.Figure | None:
    known = [each for each in found["records"] if each["seconds"] and each["prediction"]]
    if not known:
        return None
    ceilings = {_ceiling(each): None for each in known}
    return roofline([_achieved(each) for each in known], list(ceilings), look=look)


def _cache(found: Found, detail: Found, look: Theme) -> go.Figure | None:
    told = found.get("cache")
    if told is None:
        return None
    return figures.cache(told["tokens"], cache_lines(told), cache_measured(found), look=look)


def _ceiling(each: Found) -> Ceiling:
    told = each["prediction"]
    return Ceiling(
        name=f"{each['dtype']}, {told['origin']}",
        flops_per_second=told["flops_per_second"],
        bytes_per_second=told["bytes_per_second"],
    )


def _achieved(each: Found) -> Achieved:
    told = each["prediction"]
    return Achieved(
        backend=each["backend"],
        phase=each["phase"],
        intensity=told["flops"] / told["nbytes"],
        flops_per_second=told["flops"] / each["seconds"][0],
        kernel=each["kernel"],
        words=achieved(each),
    )


def _parts(found: Found, detail: Found, look: Theme) -> go.Figure | None:
    inner = _inner(detail["parts"])
    if not inner:
        return None
    bars = [
        figures.Part(kind=part["kind"], layer=part["layer"], milliseconds=1e3 * part["seconds"])
        for part in inner
    ]
    return figures.parts(bars, look=look)


def _timeline(found: Found, detail: Found, look: Theme) -> go.Figure | None:
    told = detail["timeline"]
    if told is None:
        return None
    return figures.timeline(told["kinds"], told["seconds"], told["nbytes"], look=look)


def _kernels(found: Found, detail: Found, look: Theme) -> go.Figure | None:
    told = detail["kernels"]
    if not told:
        return None
    names, shares = [each["name"] for each in told], [each["share"] for each in told]
    return figures.kernels(names, shares, look=look)


def _inner(parts: Sequence[Found]) -> list[Found]:
    """All but whole layers, which hold the others."""
    return [part for part in parts if part["kind"] != "layer"]


def _cells_frame(found: Found, detail: Found) -> pd.DataFrame:
    names = ("backend", "phase", "batch", "length", "dtype", "runs", "tokens_per_s")
    rows = []
    for each in found["records"]:
        median, p10, p90 = each["seconds"] or (None, None, None)
        failure = each["failure"] or {"outcome": "", "reason": ""}
        told = each["prediction"] or {}
        rows.append(
            {
                **{name: each[name] for name in names},
                "median_s": median,
                "p10_s": p10,
                "p90_s": p90,
                "peak_allocated_bytes": each["allocated_bytes"],
                "predicted_bytes": each["predicted_bytes"],
                **{f"{name}_predicted": told.get(name) for name in ("seconds", "flops", "nbytes")},
                "ceiling_flops_per_s": told.get("flops_per_second"),
                "ceiling_bytes_per_s": told.get("bytes_per_second"),
                "ceilings": told.get("origin", ""),
                "watts": each["watts"],
                "joules_per_token": each["joules_per_token"],
                "kernel": each["kernel"],
                "flags": "; ".join(each["flags"]),
                "outcome": failure["outcome"],
                "reason": failure["reason"],
                "record": each["id"],
            }
        )
    return pd.DataFrame(rows)


def _cache_frame(found: Found, detail: Found) -> pd.DataFrame:
    told = found.get("cache") or {"tokens": [], "grown": [], "paged": [], "reserved": 0}
    held = {f"{name}_bytes": told[name] for name in ("grown", "paged", "reserved")}
    return pd.DataFrame({"tokens": told["tokens"], **held})


def _parts_frame(found: Found, detail: Found) -> pd.DataFrame:
    return pd.DataFrame(_inner(detail["parts"]), columns=["kind", "layer", "name", "seconds"])


def _timeline_frame(found: Found, detail: Found) -> pd.DataFrame:
    told = detail["timeline"] or {"kinds": [], "seconds": [], "nbytes": []}
    columns = [f"{kind}_bytes" for kind in told["kinds"]]
    return pd.DataFrame(told["nbytes"], columns=columns).assign(seconds=told["seconds"])


def _kernels_frame(found: Found, detail: Found) -> pd.DataFrame:
    return pd.DataFrame(detail["kernels"], columns=["name", "share", "count"])


_FIGURES: dict[str, Callable[[Found, Found, Theme], go.Figure | None]] = {
    "latency": _over_length("latency"),
    "memory": _over_length("memory"),
    "throughput": _over_length("throughput"),
    "roofline": _roofline,
    "cache": _cache,
    "power": _over_length("power"),
    "energy": _over_length("energy"),
    "parts": _parts,
    "timeline": _timeline,
    "kernels": _kernels,
}
_FRAMES: dict[str, Callable[[Found, Found], pd.DataFrame]] = {
    **dict.fromkeys(OF_ALL, _cells_frame),
    "cache": _cache_frame,
    "parts": _parts_frame,
    "timeline": _timeline_frame,
    "kernels": _kernels_frame,
}
