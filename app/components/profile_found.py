"""What a profile found: time and memory over length, every cell in a table, and one cell taken apart."""

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import plotly.graph_objects as go
import streamlit as st

from attnscope.app.commands.profile import HEADER
from attnscope.app.components.notice import notice
from attnscope.app.components.plain_table import plain_table
from attnscope.app.components.profile_plan import swatch
from attnscope.app.figures.theme import Theme
from attnscope.app.files.charts import MEDIA_TYPES
from attnscope.app.files.profile import figure_of
from attnscope.app.page_session import Notice
from attnscope.app.state import Key
from attnscope.app.words.profile import (
    OF_ALL,
    OF_ONE,
    PREDICTED,
    PREDICTED_NOTE,
    TITLES,
    predicted,
    words_of,
)
from attnscope.profiling.units import count, latency

Found = Mapping[str, Any]

_NUMBERS = range(2, 8)  # columns of the table that are numbers
_SHIPS = "This profile ships with Attnscope, measured on another machine. Yours takes its place."
_METERS = {"power": {"power_w"}, "energy": {"power_w", "energy_j"}}
"""The figures of the device's samples that a chart is made of."""
_CONFIG = {"displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"]}
_FIGURES = {
    "device_bytes": "memory in use",
    "process_bytes": "the process's memory",
    "utilisation": "utilisation",
    "power_w": "power",
    "energy_j": "energy",
    "temperature_c": "temperature",
    "clock_mhz": "clock",
    "memory_clock_mhz": "memory clock",
    "throttled": "throttling",
    "others": "other processes",
    "load": "load",
}


def charts(found: Found, record: str, *, look: Theme) -> None:
    """Draw time and memory over length, and the table of cells.

    Args:
        found: The answer to `profile`; at least one record.
        record: The cell that the report takes apart; empty for none.
        look: The colours.
    """
    files = _whole(found, record)
    st.html(f'<div class="pg-heading"><h2>{html.escape(_title(found))}</h2>{files}</div>')
    if found["ships"]:
        st.html(f'<p class="pg-note">{_SHIPS}</p>')
    figures = {what: figure_of(what, found, {}, look=look) for what in OF_ALL}
    drawn = [(what, figure) for what, figure in figures.items() if figure is not None]
    missing = [what for what, figure in figures.items() if figure is None]
    needed = len(drawn) + bool(missing)
    places = [place for _ in range(0, needed, 2) for place in st.columns(2, gap="medium")]
    for place, (what, figure) in zip(places, drawn, strict=False):
        with place, st.container(gap="xxsmall"):
            _chart(what, figure, found, {}, look=look)
    if missing:
        with places[len(drawn)]:
            st.html(_not_drawn(missing, found))
    for told in found["told"]:
        notice(Notice(kind="failed", message=told))
    st.html(table_html(found["records"], found["kept"]))
    rows = predicted(found["records"])
    if rows:
        with st.expander("Predicted beside measured"):
            plain_table(PREDICTED_NOTE, rows, header=PREDICTED, numbers=True)


def cell(
    found: Found, detail: Found, record: Found, *, look: Theme, on_choose: Callable[[], None]
) -> None:
    """Draw one cell: its parts, its memory over time, its kernels.

    Args:
        found: The answer to `profile`.
        detail: The answer to `profile_detail`.
        record: The record of the cell.
        look: The colours.
        on_choose: Called before the rerun when another is chosen.
    """
    measured = [each for each in found["records"] if each["failure"] is None]
    names = {each["id"]: _name(each, measured) for each in measured}
    with st.container(key="profile_cell_row", horizontal=True, vertical_alignment="bottom"):
        st.selectbox(
            "One cell, taken apart",
            list(names),
            key=Key.PROFILE_CELL,
            format_func=lambda each: names[each],
            on_change=on_choose,
            width=380,
        )
        st.html(_verdict(record))
        links = []
        if record["id"] in found["kept"]:
            links.append(("Its page on Runs", run_address(record["id"])))
        if found["plan"]["traces"]:
            links.append(("Perfetto trace", _address(found, "trace", record=record["id"])))
        if record["id"] in found["snapshots"]:
            address = _address(found, "snapshot", record=record["id"])
            links.append(("Memory snapshot, for pytorch.org/memory_viz", address))
        st.html(_links(links))
    columns = st.columns(len(OF_ONE), gap="medium")
    for column, what in zip(columns, OF_ONE, strict=True):
        with column, st.container(gap="xxsmall"):
            figure = figure_of(what, found, detail, look=look)
            _chart(what, figure, found, detail, look=look, record=record["id"])
    if record["id"] not in found["snapshots"]:
        st.html(f'<p class="pg-note">{html.escape(_no_snapshot(found))}</p>')
    if detail["overhead"] is not None:
        st.html(
            f'<p class="pg-note">Timing the parts took {detail["overhead"]:.3g} times as long as the run alone. '
            "Memory over time is watched operator by operator: its seconds order the moments, and are no latency.</p>"
        )


def _no_snapshot(found: Found) -> str:
    """Why there is no file for PyTorch's own viewer, and what tells the same."""
    device = found["machine"]["device"]
    why = "measure with “Keep traces” switched on"
    if not device.startswith("cuda"):
        why = f"PyTorch keeps that history on CUDA only, and this is {device}"
    ours = f"The JSON of “{TITLES['timeline']}” is our own history of it."
    return f"No snapshot for PyTorch's memory viewer: {why}. {ours}"


def absences(found: Found) -> None:
    """Say what was not measured here, and why."""
    items = [
        f"{', '.join(_FIGURES[name] for name in names)}: {reason}"
        for reason, names in found["missing"].items()
    ]
    if items:
        listed = "".join(f"<li>{html.escape(item)}</li>" for item in items)
        st.html(f'<p class="pg-note">Not measured here</p><ul class="pg-reasons">{listed}</ul>')
    st.html(f'<p class="pg-note pg-origin">{html.escape(found["provenance"])}</p>')


def table_html(records: Sequence[Found], kept: Sequence[str] = ()) -> str:
    """Every cell in a row; what could not be measured says why; ids that the history holds lead there."""
    header = [*HEADER, "run"] if kept else HEADER
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in header)
    body = "".join(_table_row(each, kept) for each in records)
    return (
        f'<div class="pg-scroll"><table class="pg-table"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def run_address(run: str) -> str:
    """Where the page Runs opens a run."""
    return f"/runs?{urlencode({'run': run})}"


def _table_row(each: Found, kept: Sequence[str]) -> str:
    backend, *texts = each["row"]
    *numbers, why = texts
    cells = "".join(
        f"<td{' class=pg-number' if at in _NUMBERS else ''}>{html.escape(text)}</td>"
        for at, text in enumerate(numbers, start=1)
    )
    cells += f"<td class=pg-why>{html.escape(why)}</td>"
    if kept:
        run = each["id"]
        link = f'<a href="{run_address(run)}">{run[:6]}</a>' if run in kept else ""
        cells += f"<td>{link}</td>"
    marked = ' class="pg-failure"' if each["failure"] or each["fallback"] else ""
    return f'<tr{marked}><th scope="row">{swatch(backend)}{html.escape(backend)}</th>{cells}</tr>'


def _chart(
    what: str,
    figure: go.Figure | None,
    found: Found,
    detail: Found,
    *,
    look: Theme,
    record: str = "",
) -> None:
    named = {"record": record} if record else {}
    forms = [
        (
            form.upper() if len(form) < 5 else form.capitalize(),
            _address(found, "export", what=what, format=form, theme=look.name, **named),
        )
        for form in MEDIA_TYPES
    ]
    if figure is None:
        notes = " ".join(detail["notes"]) or "It was not measured for this cell."
        st.html(
            f'<div class="pg-heading"><h3>{TITLES[what]}</h3></div>'
            f'<p class="pg-note">{html.escape(notes)}</p>'
        )
        return
    st.html(f'<div class="pg-heading"><h3>{TITLES[what]}</h3>{_links(forms)}</div>')
    st.plotly_chart(
        figure,
        theme=None,
        key=f"profile_{what}",
        config=_CONFIG,
        alt=f"{TITLES[what]}. {words_of(what, found, detail)}",
    )


def _not_drawn(charts: Sequence[str], found: Found) -> str:
    """The charts that nothing was measured for, by the reason."""
    titles: dict[str, list[str]] = {}
    for what in charts:
        titles.setdefault(_absence(what, found), []).append(TITLES[what])
    return "".join(
        f'<div class="pg-heading"><h3>{" · ".join(named)}</h3></div>'
        f'<p class="pg-note">{html.escape(reason)}</p>'
        for reason, named in titles.items()
    )


def _absence(what: str, found: Found) -> str:
    """Why there is nothing to draw of all cells, and what would change that."""
    if what in _METERS:
        reasons = [
            reason
            for reason, names in found["missing"].items()
            if not _METERS[what].isdisjoint(names)
        ]
        why = "; ".join(reasons) or "the runs were too short for the meter"
        return f"Not measured: {why}. On an NVIDIA GPU its driver tells power and energy, and they are drawn here."
    if what == "cache":
        return "The model keeps no key/value cache, or it was measured before its growth was told."
    return (
        "Nothing to draw: no cell has figures yet, or this device's ceilings were not known when they were measured. "
        "Measure the ceilings, then measure again."
    )


def _verdict(record: Found) -> str:
    """What ran, and whether that is what was asked for."""
    if record["fallback"]:
        return f'<p class="pg-ran pg-fell">Silent fallback: {html.escape(record["fallback"])}.</p>'
    ran = html.escape(record["kernel"] or "unknown")
    median = latency(record["seconds"][0])
    return (
        f'<p class="pg-ran">{median} at the median of {count(record["runs"])} runs · '
        f"attention ran as <strong>{ran}</strong></p>"
    )


def _name(record: Found, records: Sequence[Found]) -> str:
    parts = [record["backend"], record["phase"], f"{count(record['length'])} tokens"]
    if len({each["batch"] for each in records}) > 1:
        parts.append(f"batch {record['batch']}")
    if len({each["dtype"] for each in records}) > 1:
        parts.append(record["dtype"])
    return ", ".join(parts)


def _title(found: Found) -> str:
    when = found["measured"][:16].replace("T", " ")
    return f"{found['model']['title']} on {found['machine']['name']}, {when} UTC"


def _whole(found: Found, record: str) -> str:
    named = {"record": record} if record else {}
    return _links(
        [
            ("Report, HTML", _address(found, "report", **named)),
            ("Records, JSON Lines", _address(found, "records")),
        ]
    )


def _address(found: Found, route: str, **query: str) -> str:
    asked = f"?{urlencode(query)}" if query else ""
    return f"/attnscope/profiles/{found['plan']['profile']}/{route}{asked}"


def _links(links: Sequence[tuple[str, str]]) -> str:
    return "".join(
        [
            '<span class="pg-files">',
            *(
                f'<a href="{html.escape(address)}"{" download" * ("/attnscope/" in address)}>{text}</a>'
                for text, address in links
            ),
            "</span>",
        ]
    )
