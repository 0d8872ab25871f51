"""One run opened: what was found, how it went, what repeats it; and several side by side."""

import html
import json
from collections.abc import Sequence

import pandas as pd
import streamlit as st

from attnscope.app.components.chart import chart, look
from attnscope.app.components.notice import notice
from attnscope.app.components.plain_table import plain_table
from attnscope.app.figures.runs import memory_over_time, over_length, samples
from attnscope.app.state import Notice
from attnscope.app.words import runs as words
from attnscope.profiling.comparison import Comparison
from attnscope.profiling.record import RunRecord
from attnscope.profiling.store_rows import RunRow
from attnscope.profiling.units import latency


def run_details(record: RunRecord, whose: str) -> None:
    """Draw everything that a record holds."""
    heading(words.headline(record), whose)
    if record.failure is not None:
        failure = record.failure
        said = f"{failure.outcome.replace('_', ' ').capitalize()}: {failure.reason.rstrip('.')}."
        notice(Notice(message=said, remedy=failure.remedy))
    found = words.figures_of(record)
    if found:
        _facts(found)
    if record.flags:
        notice(Notice(kind="told", message=f"To know: {'; '.join(record.flags)}."))
    _charts(record)
    left, right = st.columns(2, gap="medium")
    has_parts = record.parts is not None or bool(record.kernels)
    with left:
        _parts(record)
    with right if has_parts else left:
        plain_table("What repeats it", words.provenance(record))
    if record.notes:
        plain_table("What was not measured", [(each,) for each in record.notes])
    with st.expander("The record as JSON"):
        st.code(json.dumps(json.loads(record.to_json()), indent=2), language="json", height=360)


def over_lengths(rows: Sequence[RunRow], *, name: str, title: str) -> None:
    """Draw time and memory of runs over their length, what failed as crosses."""
    latencies, memories = words.points(rows)
    devices = ", ".join(dict.fromkeys(row.device_name for row in rows))
    note = f"{len(rows)} runs on {devices}; a cross is a run without figures"
    figure = over_length(latencies, memories, title=title, note=note, look=look())
    chart(figure, words.frame(rows), name=name, title=title, note=note)


def run_comparison(found: Comparison, rows: Sequence[RunRow]) -> None:
    """Draw runs side by side: what differs, then their figures; `rows` are those of its runs, in order."""
    heading(f"{len(rows)} runs compared", "ratios are to the first")
    if found.cautions:
        notice(Notice(kind="told", message="Compare with care.", remedy=" ".join(found.cautions)))
    header, figures = words.compared(found)
    plain_table("Figures", figures, header=header, numbers=True)
    differences = [(each.name, *each.values) for each in found.differences]
    if differences:
        runs = ("", *(f"{row.backend} {row.id[:6]}" for row in rows))
        plain_table("What differs", differences, header=runs)
    if len({row.length for row in rows if row.is_measured}) > 1:
        over_lengths(rows, name="compared", title="Time and peak memory of the runs compared")


def heading(title: str, beside: str) -> None:
    """Draw a heading with a quiet word beside it."""
    st.html(
        f'<h2 class="pg-heading">{html.escape(title)} <small>{html.escape(beside)}</small></h2>'
    )


def _facts(found: words.Pairs) -> None:
    items = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in found
    )
    st.html(f'<dl class="pg-facts">{items}</dl>')


def _charts(record: RunRecord) -> None:
    timing, timeline = record.timing, record.timeline
    if timing is None:
        return
    note = f"run {record.id} on {record.machine.name}"
    left, right = st.columns(2, gap="medium")
    with left:
        title = f"Each run's time; median {latency(timing.median_s)}".replace("\u202f", " ")
        cuts = (timing.p10_s, timing.median_s, timing.p90_s)
        figure = samples(
            timing.samples_s,
            cuts,
            title=title,
            note=f"{note}; the band is the 10th to the 90th percentile",
            look=look(),
        )
        data = pd.DataFrame({"run": range(1, timing.count + 1), "seconds": timing.samples_s})
        chart(figure, data, name="samples", title=title, note=note)
    if timeline is None or not timeline.seconds:
        return
    with right:
        title = "Memory over one run, by what it is for"
        figure = memory_over_time(
            timeline.kinds, timeline.seconds, timeline.nbytes, title=title, note=note, look=look()
        )
        data = pd.DataFrame(timeline.nbytes, columns=list(timeline.kinds))
        data.insert(0, "seconds", timeline.seconds)
        chart(figure, data, name="memory", title=title, note=note)


def _parts(record: RunRecord) -> None:
    kernels = words.kernels_of(record)
    if record.parts is not None:
        spent = record.parts.by_kind()
        rows = [(kind.replace("_", " "), latency(taken)) for kind, taken in spent.items()]
        plain_table("Time by module", rows, header=("module", "median"), numbers=True)
    if kernels:
        header = ("kernel or operator", "time", "calls", "share")
        plain_table("Kernels of most time", kernels, header=header, numbers=True)
