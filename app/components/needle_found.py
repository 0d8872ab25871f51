"""What a run of needles found: the grids, one cell's prompt and answers, and which heads looked."""

import html
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from attnscope.app.components.chart import files, table_files
from attnscope.app.components.plain_table import plain_table
from attnscope.app.components.sparsity_found import heading
from attnscope.app.figures.heads_grid import Heads, heads_frame, heads_grid
from attnscope.app.figures.needle import NeedleGrid, needle_frame, needle_grid
from attnscope.app.figures.theme import Theme
from attnscope.app.words import needle as words
from attnscope.profiling.units import count

Told = Mapping[str, Any]

_COLUMNS = [
    "length",
    "depth",
    "seed",
    "expected",
    "said",
    "exact",
    "log_probability",
    "rank",
    "seconds",
]
_PLOT = {"displaylogo": False, "displayModeBar": False, "typesetMath": False}
TOP = 8
"""Heads of the table."""
_TAGS = {"prose": ("<span>", "</span>"), "needle": ("<mark>", "</mark>"), "gap": ("<i>", "</i>")}
_TAGS |= {"value": ("<mark><b>", "</b></mark>"), "question": ("", "")}


def lead(found: Told, setting: str) -> None:
    """Say in words up to where the needle is found.

    Args:
        found: The answer to `needle`, with at least one cell.
        setting: How attention ran, plain text; empty where nothing is compared.
    """
    first, rest = words.verdict(found["cells"])
    of = f"{setting}: " if setting else ""
    st.html(
        f'<p class="pg-lead" role="status">{html.escape(of)}<strong>{html.escape(first)}</strong> '
        f"<span>{html.escape(rest)}</span></p>"
    )


def grid(
    drawn: NeedleGrid,
    found: Told,
    *,
    title: str,
    key: str,
    width: int,
    look: Theme,
    on_choose: Callable[[], None] | None,
) -> None:
    """Draw one grid; a click chooses a cell.

    Args:
        drawn: The grid.
        found: The answer to `needle`.
        title: How its attention ran, plain text.
        key: Of the chart.
        width: Pixels that it has.
        look: The colours.
        on_choose: Called when a cell is clicked; None where cells cannot be chosen yet.
    """
    model = found["facts"]["model"]["title"]
    name = words.SCORES[drawn.score]
    whole = f"{model}, {title}: {name} by length and depth"
    note = " ".join(words.verdict(drawn.cells)) if drawn.cells else "Nothing has run yet."
    chosen = {} if on_choose is None else {"on_select": on_choose, "selection_mode": "points"}
    with st.container(key=f"chart_{key}", gap=None):
        heading(title, name)
        st.plotly_chart(
            needle_grid(drawn, title=whole, note=note, look=look, width=width),
            theme=None,
            config=_PLOT,
            key=key,
            width="content",
            alt=f"{whole}. {note}",
            **chosen,
        )
        filed = needle_grid(drawn, title=whole, note=words.provenance(found), look=look)
        files(
            filed,
            needle_frame(drawn.cells),
            name=f"{key}-{drawn.score}",
            title=whole,
            note=words.provenance(found),
            of=model,
        )


def prompt(cell: Told, *, title: str, of: str) -> None:
    """Draw a cell's first prompt with its needle lit, and the answers of all its trials.

    Args:
        cell: The answer to `needle_cell`.
        title: Which cell, plain text.
        of: The model, for the files' names.
    """
    first = cell["trials"][0]
    parts = "".join(
        f"{_TAGS[kind][0]}{html.escape(text)}{_TAGS[kind][1]}" for kind, text in first["excerpt"]
    )
    with st.container(key="chart_needle-cell", gap=None):
        heading("The prompt", f"{title}, seed {first['seed']}")
        st.html(f'<div class="pg-haystack">{parts}</div>')
        plain_table(
            "The answers; said is the likeliest token at each place, with the right ones before it",
            [
                (
                    f"seed {each['seed']}",
                    each["expected"].strip(),
                    "the same" if each["exact"] else each["said"].strip() or "spaces",
                    words.nats_text(each["log_probability"], 2),
                    words.rank_text(each["rank"]),
                )
                for each in cell["trials"]
            ],
            header=("", "expected", "said", "nats a token", "mean rank"),
        )
        table_files(
            pd.DataFrame(
                [[each[name] for name in _COLUMNS] for each in cell["trials"]], columns=_COLUMNS
            ),
            name="needle-cell",
            title=f"{of}: {title}",
            note="One row a trial",
            of=of,
        )


def attention(
    cell: Told, part: str, queries: str, *, title: str, of: str, width: int, look: Theme
) -> None:
    """Draw the mass that each head puts on a part of the prompt.

    Args:
        cell: The answer to `needle_cell`; its attention is not None.
        part: Of the prompt.
        queries: Whose mass.
        title: Which cell, plain text.
        of: The model, for the files' names.
        width: Pixels that it has.
        look: The colours.
    """
    mass_PLH = np.array(cell["attention"][queries], np.float32)
    values_LH = mass_PLH[cell["parts"].index(part)]
    heads = Heads(values=values_LH, layers=range(len(values_LH)), name="mass")
    whole = f"{of}, {title}: mass on {words.PARTS[part]}"
    layer, head = np.unravel_index(int(np.nanargmax(values_LH)), values_LH.shape)
    note = (
        f"Of {words.QUERIES[queries]}, the mean over {count(len(cell['trials']))} trials; most is "
        f"{values_LH[layer, head]:.2f}, in layer {layer}, head {head}."
    )
    with st.container(key="chart_needle-attention", gap=None):
        heading("Where the attention went", title)
        st.plotly_chart(
            heads_grid(heads, title=whole, note=note, look=look, width=width),
            theme=None,
            config=_PLOT,
            key="needle_attention",
            width="content",
            alt=f"{whole}. {note}",
        )
        st.html(f'<p class="pg-note">{html.escape(note)}</p>')
        filed = heads_grid(heads, title=whole, note=note, look=look)
        files(filed, heads_frame(heads), name=f"mass-on-{part}", title=whole, note=note, of=of)


def top_heads(found: Told, addresses: Mapping[tuple[int, int], str], why_not: str) -> None:
    """Draw the heads that copy most, each with a link to Inspect.

    Args:
        found: The answer to `needle`.
        addresses: Of Inspect, by layer and head; empty where there is none.
        why_not: Why there is none, or what the link does not show.
    """
    rows = words.head_rows(found["heads"], TOP)
    places = [(each["layer"], each["head"]) for each in found["heads"][:TOP]]
    body = "".join(
        f'<tr><th scope="row">{_linked(name, addresses.get(place, ""))}</th>'
        f"<td>{html.escape(copied)}</td><td>{html.escape(mass)}</td></tr>"
        for place, (name, copied, mass) in zip(places, rows, strict=True)
    )
    head = "".join(
        f'<th scope="col">{each}</th>'
        for each in ("open in Inspect", "copied", "mass on the needle")
    )
    note = f"{words.ranked_note(found)} {why_not}"
    model = found["facts"]["model"]["title"]
    with st.container(key="chart_needle-heads", gap=None):
        heading("Heads that look there", "over the grid")
        st.html(
            '<div class="pg-scroll"><table class="pg-table pg-numbers">'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
            f'<p class="pg-note">{html.escape(note)}</p>'
        )
        table_files(
            pd.DataFrame(found["heads"]),
            name="needle-heads",
            title=f"{model}: heads by what they copy",
            note=words.provenance(found),
            of=model,
        )


def _linked(name: str, address: str) -> str:
    if not address:
        return html.escape(name)
    return (
        f'<a class="pg-open" href="{html.escape(address)}" target="_self">{html.escape(name)}</a>'
    )
