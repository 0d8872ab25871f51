"""What a profile found: time and memory over length, every cell in a table, and one cell taken apart."""

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import streamlit as st

from attnscope.app.cli_profile import HEADER
from attnscope.app.components.notice import notice
from attnscope.app.components.profile_plan import swatch
from attnscope.app.components.profile_predictions import predictions
from attnscope.app.exports import MEDIA_TYPES
from attnscope.app.figures.theme import Theme
from attnscope.app.page_session import Notice
from attnscope.app.profile_exports import OF_ALL, OF_ONE, TITLES, figure_of, roofline_words
from attnscope.app.state import Key
from attnscope.profiling.units import count, latency, share

Found = Mapping[str, Any]

_NUMBERS = range(2, 8)  # columns of the table that are numbers
_METERS = {"power": {"power_w"}, "energy": {"power_w", "energy_j"}}
"""The figures of the device's samples that a chart is made of."""
_SAID: dict[str, Callable[[Found], str]] = {
    "latency": lambda each: each["row"][HEADER.index("median")],
    "memory": lambda each: each["row"][HEADER.index("peak memory")],
    "throughput": lambda each: f"{each['row'][HEADER.index('tokens/s')]} tokens/s",
    "power": lambda each: "-" if each["watts"] is None else f"{each['watts']:.3g} W",
    "energy": lambda each: (
        "-" if each["joules_per_token"] is None else f"{each['joules_per_token']:.3g} J a token"
    ),
}
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


def charts(found: Found, *, look: Theme) -> None:
    """Draw time and memory over length, and the table of cells.

    Args:
        found: The answer to `profile`; at least one record.
        look: The colours.
    """
    files = _whole(found)
    st.html(f'<div class="pg-heading"><h2>{html.escape(_title(found))}</h2>{files}</div>')
    for pair in zip(OF_ALL[::2], OF_ALL[1::2], strict=True):
        for column, what in zip(st.columns(2, gap="medium"), pair, strict=True):
            with column, st.container(gap="xxsmall"):
                _chart(what, found, {}, look=look)
    for told in found["told"]:
        notice(Notice(kind="failed", message=told))
    st.html(table_html(found["records"], found["kept"]))
    predictions(found["records"])


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
        st.html(_links(links))
    columns = st.columns(len(OF_ONE), gap="medium")
    for column, what in zip(columns, OF_ONE, strict=True):
        with column, st.container(gap="xxsmall"):
            _chart(what, found, detail, look=look, record=record["id"])
    if detail["overhead"] is not None:
        st.html(
            f'<p class="pg-note">Timing the parts took {detail["overhead"]:.3g} times as long as the run alone. '
            "Memory over time is watched operator by operator: its seconds order the moments, and are no latency.</p>"
        )


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


def _chart(what: str, found: Found, detail: Found, *, look: Theme, record: str = "") -> None:
    named = {"record": record} if record else {}
    forms = [
        (
            form.upper() if len(form) < 5 else form.capitalize(),
            _address(found, "export", what=what, format=form, theme=look.name, **named),
        )
        for form in MEDIA_TYPES
    ]
    figure = figure_of(what, found, detail, look=look)
    if figure is None:
        st.html(
            f'<div class="pg-heading"><h3>{TITLES[what]}</h3></div>'
            f'<p class="pg-note">{html.escape(_absence(what, found, detail))}</p>'
        )
        return
    st.html(f'<div class="pg-heading"><h3>{TITLES[what]}</h3>{_links(forms)}</div>')
    st.plotly_chart(
        figure, theme=None, key=f"profile_{what}", config=_CONFIG, alt=_alt(what, found, detail)
    )


def _absence(what: str, found: Found, detail: Found) -> str:
    """Why there is nothing to draw, and what would change that."""
    if what in OF_ONE:
        return " ".join(detail["notes"]) or "It was not measured for this cell."
    if what in _METERS:
        reasons = [
            reason
            for reason, names in found["missing"].items()
            if not _METERS[what].isdisjoint(names)
        ]
        why = "; ".join(reasons) or "the runs were too short for the meter"
        return f"Not measured: {why}. On an NVIDIA GPU its driver tells power and energy, and they are drawn here."
    return (
        "Nothing to draw: no cell has figures yet, or this device's ceilings were not known when they were measured. "
        "Measure the ceilings, then measure again."
    )


def _alt(what: str, found: Found, detail: Found) -> str:
    """What a chart says, in words."""
    if what == "roofline":
        return roofline_words(found)
    if what in OF_ALL:
        told = [
            f"{each['backend']} {each['phase']} {_value(what, each)}" for each in found["records"]
        ]
        return f"{TITLES[what]}: {'; '.join(told)}"
    if what == "kernels":
        told = [f"{each['name']} {share(each['share'])}" for each in detail["kernels"]]
        return f"{TITLES[what]}: {'; '.join(told)}"
    return TITLES[what]


def _value(what: str, each: Found) -> str:
    if each["failure"] is not None:
        return f"at {count(each['length'])} tokens: {each['failure']['reason']}"
    return f"at {count(each['length'])} tokens: {_SAID[what](each)}"


def _verdict(record: Found) -> str:
    """What ran, and whether that is what was asked for."""
    if record["fallback"]:
        return (
            f'<p class="pg-verdict pg-fell">Silent fallback: {html.escape(record["fallback"])}.</p>'
        )
    ran = html.escape(record["kernel"] or "unknown")
    median = latency(record["seconds"][0])
    return (
        f'<p class="pg-verdict">{median} at the median of {count(record["runs"])} runs · '
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


def _whole(found: Found) -> str:
    return _links(
        [
            ("Report, HTML", _address(found, "report")),
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
