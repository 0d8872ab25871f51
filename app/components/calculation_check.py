"""Check it: the closed form beside the model's own class, traced, and beside a run on this machine."""

import html
from collections.abc import Callable, Mapping
from typing import Any

import streamlit as st

from attnscope.app.components.calculation import table
from attnscope.app.components.notice import notice
from attnscope.app.components.progress import progress
from attnscope.app.jobs.engine import JobStatus
from attnscope.app.page_session import Notice
from attnscope.app.words.calculation import error_words, part_of_model
from attnscope.profiling.units import nbytes

_PARTS = {
    "weights": "weights and buffers",
    "cache": "key/value cache",
    "kept": "master weights and optimiser states",
    "gradients": "gradients",
    "activations": "activations and attention",
    "total": "total",
}
_ABOUT = (
    "Run the model's own class without weights under PyTorch's memory tracker, and for real where this "
    "machine can: the same peak, counted twice more."
)
Column = Mapping[str, Any]


def check(
    status: JobStatus | None,
    result: Mapping[str, Column] | None,
    *,
    on_start: Callable[[], None],
) -> None:
    """Draw what stands of the check: the button, its progress, or the columns side by side.

    Args:
        status: Of its job; None where there is none.
        result: Of the job `check`, once it is done.
        on_start: Called for the button.
    """
    with st.container(key="check_head", horizontal=True, vertical_alignment="center", gap="small"):
        st.html(f'<h2 class="pg-heading">Check it</h2><p class="pg-quiet">{_ABOUT}</p>')
        if status is None or status.is_over:
            again = "Check again" if result is not None else "Check it"
            st.button(again, key="calculator_check", on_click=on_start)
    if status is not None and not status.is_over:
        progress(status)
    elif status is not None and result is None:
        notice(_ending(status))
    if result is not None:
        _columns(result)


def _ending(status: JobStatus) -> Notice:
    if status.state == "cancelled":
        return Notice(kind="told", message="The check was cancelled.")
    kind = "failed" if status.reference else "refused"
    return Notice(
        kind=kind, message=status.reason, remedy=status.remedy, reference=status.reference
    )


def _columns(result: Mapping[str, Column]) -> None:
    closed, others = result["closed"], (result["traced"], result["measured"])
    rows = []
    for part, name in ((part, name) for part, name in _PARTS.items() if part in closed):
        cells = [f"<td>{nbytes(closed[part])}</td>"]
        for column in others:
            cells += _beside(closed[part], column.get(part), "reason" in column)
        mark = ' class="pg-total"' if part == "total" else ""
        rows.append(f'<tr{mark}><th scope="row">{name}</th>{"".join(cells)}</tr>')
    worst = [f"<td>{html.escape(part_of_model(closed['moment']))}</td>"]
    worst += [f'<td colspan="2">{_said(column)}</td>' for column in others]
    rows.append(f'<tr><th scope="row">worst moment in, or where it ran</th>{"".join(worst)}</tr>')
    table(("", "closed form", "traced", "error", "measured", "error"), rows)


def _beside(closed: int, other: int | None, refused: bool) -> tuple[str, str]:
    if other is None:
        return ("<td></td>", "<td></td>") if refused else ("<td>not told apart</td>", "<td></td>")
    return f"<td>{nbytes(other)}</td>", f"<td>{error_words(closed, other)}</td>"


def _said(column: Column) -> str:
    """Where the worst moment was, or why there is no column."""
    if "reason" in column:
        reason, remedy = html.escape(column["reason"]), html.escape(column["remedy"])
        return f'<span class="pg-refusal">{reason} {remedy}</span>'
    beside = f"<small>{html.escape(column['note'])}</small>" if column["note"] else ""
    return html.escape(column["moment"]) + beside
