"""What a check of backends found: every backend in a row, then one of them head by head, with its wrong cell."""

import html
from collections.abc import Callable, Mapping, Sequence
from textwrap import wrap
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from attnscope.app.components.chart import chart, table_files
from attnscope.app.components.profile_plan import swatch
from attnscope.app.figures import backends as figures
from attnscope.app.figures.backends import HeadCell
from attnscope.app.figures.theme import Theme, framed, plain
from attnscope.app.files import backends_frames as frames
from attnscope.app.state import Key
from attnscope.app.words.backends import HEADER, error_words, provenance

Told = Mapping[str, Any]

COLUMNS = (
    "backend",
    "verdict",
    "error of the worst head",
    "logits differ by",
    "same top token",
    "latency",
    "speed-up",
    "peak memory",
    "kernel that ran",
)
_TITLES = {
    "latency": "Latency of one pass over the prompt, in turns",
    "memory": "Peak memory of that pass",
    "heads": "Relative error of every head",
}
_FILE_WIDTH, _NOTE_CHARACTERS = 960, 150
PROMISE = (
    "Check runs every backend on the prompt: each head's output is held against dense attention in float64, then "
    "logits, latency in turns, peak memory, and the kernel that really ran."
)
_MEANING = (
    "Error: of a head's output, relative to its size, against dense attention in float64 on the layer's own q, k, v; "
    "in float32 it may be 1e-5, in 16 bits twice what PyTorch's own attention errs on the same numbers. Logits: "
    "against the same model with float64 attention in every layer. Speed-up: over eager. Memory: at the worst "
    "moment, weights included."
)


def table_html(rows: Sequence[Told], *, untimed: str = "not timed") -> str:
    """Every backend in a row: its figures, or across them why it has none.

    Args:
        rows: Of a check, as `words.backends.described` writes them, or of `check_offered`, which has no figures.
        untimed: What stands where what is right has no latency.
    """
    head = "".join(f'<th scope="col">{name}</th>' for name in COLUMNS)
    body = "".join(_row(each, untimed) for each in rows)
    return (
        '<div class="pg-scroll"><table class="pg-table pg-backends"><thead>'
        f"<tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def notes_html(rows: Sequence[Told]) -> str:
    """What a reader of the figures must know: what ran in place of what was asked, and what is not settled."""
    told = [each["fallback"] for each in rows if each["fallback"]]
    shortened = [each["name"] for each in rows if each["shortened"]]
    if shortened:
        told.append(f"Timed more briefly than the rule asks, for want of time: {_list(shortened)}.")
    doubts = [f"{each['name']} ({each['unsettled']})" for each in rows if each["unsettled"]]
    if doubts:
        told.append(f"Not settled, so no ratio of theirs should be quoted: {'; '.join(doubts)}.")
    items = "".join(f"<li>{html.escape(words)}</li>" for words in told)
    return f'<ul class="pg-reasons">{items}</ul>' if items else ""


def _list(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def table(found: Told, rows: Sequence[Told]) -> None:
    """Draw the table of a check, with its export.

    Args:
        found: The answer to `check`.
        rows: Its results, and what it did not come to.
    """
    results, title = found["results"], found["facts"]["model"]["title"]
    with st.container(key="chart_backends-table", gap=None):
        st.html('<div class="pg-heading"><h3>Every backend, held against float64</h3></div>')
        st.html(table_html(rows) + notes_html(results) + f'<p class="pg-note">{_MEANING}</p>')
        table_files(
            frames.results_frame(results),
            name="backends-table",
            title=f"{title}: every backend",
            note=provenance(found["facts"]),
            of=title,
        )


def costs(found: Told, *, look: Theme) -> None:
    """Draw latency and peak memory of every backend that has them.

    Args:
        found: The answer to `check`.
        look: The colours.
    """
    timed = [each for each in found["results"] if each["seconds"] is not None]
    weighed = [each for each in found["results"] if each["allocated_bytes"] is not None]
    left, right = st.columns(2, gap="medium")
    with left:
        if timed:
            bars = [figures.milliseconds(each["name"], each["seconds"]) for each in timed]
            words = [f"{each['name']} {_text(each, 'median')}" for each in timed]
            _chart("latency", figures.latencies(bars, look=look), found, words, look=look)
    with right:
        if weighed:
            bars = [figures.mebibytes(each["name"], each["allocated_bytes"]) for each in weighed]
            words = [f"{each['name']} {_text(each, 'peak memory')}" for each in weighed]
            _chart("memory", figures.memories(bars, look=look), found, words, look=look)


def one(found: Told, row: Told, address: str, *, look: Theme) -> None:
    """Draw one backend: the error of every head, and the head to look at first.

    Args:
        found: The answer to `check`.
        row: Of its results; one that ran.
        address: Opens Inspect at that head.
        look: The colours.
    """
    left, right = st.columns([3, 2], gap="medium")
    with left:
        cells = [
            HeadCell(
                layer=head["layer"],
                head=head["head"],
                relative=head["relative"],
                wrong=head["wrong"],
            )
            for head in row["heads"]
        ]
        wrong = [f"layer {cell.layer} head {cell.head} is wrong" for cell in cells if cell.wrong]
        words = [row["name"], *(wrong or [f"{len(cells)} heads"])]
        _chart("heads", figures.head_errors(cells, look=look), found, words, look=look)
    with right:
        st.html(worst_html(row, address))


def worst_html(row: Told, address: str) -> str:
    """The head of a backend to look at first: its error, its first wrong cell, and why where that is proven."""
    worst, cell = row["worst"], row["worst"]["cell"]
    where = f"layer {worst['layer']}, head {worst['head']}"
    allowed = worst["allowed"]
    facts = [
        ("relative error", error_words(worst["relative"])),
        ("allowed", "-" if allowed is None else error_words(allowed)),
        ("largest error", error_words(worst["largest"])),
    ]
    told = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    kind = "wrong" if cell is not None else "worst"
    link = (
        f'<p class="pg-cell"><a class="pg-open" href="{html.escape(address)}" target="_self">'
        f"Open this head in Inspect</a></p>"
    )
    return (
        f'<div class="pg-heading"><h3>The {kind} head: {where}</h3></div>'
        f'<dl class="pg-facts">{told}</dl>{_cell_html(worst, cell)}{link}'
    )


def choice(
    name: str,
    options: Sequence[str],
    address: str,
    why_not: str,
    *,
    layers: int,
    on_choose: Callable[[], None],
    on_layers: Callable[[], None],
) -> None:
    """Draw what chooses the backend looked at, and what opens Inspect under it, on all layers or on some.

    Args:
        name: Of the backend.
        options: Names of those that ran.
        address: Inspect under it, on the layers that were named; empty where it is not offered.
        why_not: Why it is not; empty where it is.
        layers: How many the model has.
        on_choose: Called before the rerun when another backend is chosen.
        on_layers: Called before the rerun when other layers are named.
    """
    with st.container(
        key="backends_choice", horizontal=True, vertical_alignment="bottom", gap="small"
    ):
        st.selectbox(
            "Backend looked at", options, key=Key.CHECK_BACKEND, on_change=on_choose, width=260
        )
        if why_not:
            st.html(f'<p class="pg-note">{html.escape(why_not)}</p>')
            return
        text = st.text_input(
            "Only on layers",
            key=Key.CHECK_LAYERS,
            placeholder=f"all, 0 to {layers - 1}",
            help="Such as 0-3, 5; the others run on eager.",
            on_change=on_layers,
            width=180,
        )
        where = "on these layers" if text.strip() else "on all layers"
        st.html(
            f'<a class="pg-open" href="{html.escape(address)}" target="_self">'
            f"Inspect with {html.escape(name)} {where}</a>"
        )


def _row(each: Told, untimed: str) -> str:
    named = f"{swatch(each['name'])}{html.escape(each['name'])}"
    name = f'<th scope="row" title="{html.escape(each["title"])}">{named}</th>'
    if each["reason"]:
        kind = each.get("verdict", "refused")
        words = " ".join(filter(None, [f"{each['reason'].rstrip('.')}.", each["remedy"]]))
        marked = ' class="pg-failure"' if kind == "wrong" else ' class="pg-absent"'
        return (
            f"<tr{marked}>{name}<td>{html.escape(kind)}</td>"
            f'<td colspan="{len(COLUMNS) - 2}">{html.escape(words)}</td></tr>'
        )
    if "row" not in each:
        kind = "runs" if each["exact"] else "approximates"
        return (
            f'<tr>{name}<td>{kind}</td><td colspan="{len(COLUMNS) - 2}">not checked yet</td></tr>'
        )
    texts = {name: html.escape(text) for name, text in zip(HEADER, each["row"], strict=True)}
    spread, worst = texts["p10 - p90"], each["worst"]
    cells = (
        texts["verdict"],
        f"{texts['error']} <small>layer {worst['layer']}, head {worst['head']}</small>",
        texts["logits"],
        texts["same top token"],
        untimed if each["seconds"] is None else f"{texts['median']} <small>{spread}</small>",
        texts["speed-up"],
        texts["peak memory"],
        texts["kernel that ran"],
    )
    marked = ' class="pg-failure"' if each["fallback"] else ""
    return f"<tr{marked}>{name}{''.join(f'<td class=pg-number>{cell}</td>' for cell in cells)}</tr>"


def _cell_html(worst: Told, cell: Told | None) -> str:
    if cell is None:
        return ""
    found = "NaN or infinite" if cell["found"] is None else f"{cell['found']:.6g}"
    sequence = f"prompt {cell['sequence'] + 1}, " if cell["sequence"] else ""
    token = f" “{cell['token']}”" if cell["token"].strip() else ""
    lines = [
        f"First wrong cell: {sequence}query {cell['query']}{token}, channel {cell['channel']}: "
        f"{found}, and {cell['right']:.6g} is right.",
        f"Of this head: {worst['queries']}.",
        _cause(worst),
    ]
    return "".join(f'<p class="pg-cell">{html.escape(line)}</p>' for line in lines)


def _cause(worst: Told) -> str:
    if not worst["cause"]:
        return "No single change of a rule explains it."
    token = worst["key_token"].strip()
    return f"{worst['cause']} Key {worst['key']} is “{token}”." if token else worst["cause"]


def _chart(what: str, figure: go.Figure, found: Told, words: Sequence[str], *, look: Theme) -> None:
    rows, facts = found["results"], found["facts"]
    of = f", {words[0]}" if what == "heads" else ""
    heading = f"{_TITLES[what]}{of}"
    title = f"{facts['model']['title']}: {heading.lower()}"
    exported = go.Figure(figure)
    layout = figure.to_plotly_json()["layout"]
    framed(exported, title=title, note="", look=look)
    lines = "<br>".join(map(plain, wrap(provenance(facts), _NOTE_CHARACTERS)))
    exported.update_annotations(text=lines, align="left")  # the note is the only one
    exported.update_layout(
        width=_FILE_WIDTH, height=layout["height"] + 140, plot_bgcolor=layout["plot_bgcolor"]
    )
    chart(
        figure,
        frames.heads_frame(rows) if what == "heads" else frames.results_frame(rows),
        name=f"backends-{what}",
        title=title,
        note="; ".join(words),
        of=facts["model"]["title"],
        exported=exported,
        heading=heading,
    )


def _text(row: Told, column: str) -> str:
    return row["row"][HEADER.index(column)]
