"""One mechanism on the page: words, formula, costs, mask, measurement, snippet. Data is escaped here."""

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from attnscope.app.components.chart import chart, look
from attnscope.app.components.plain_table import plain_table
from attnscope.app.figures.groups import uptraining
from attnscope.app.figures.mask import KINDS, Mask, colours, mask_figure, mask_frame
from attnscope.app.figures.mechanism import (
    READINGS,
    Reading,
    call_words,
    cost_words,
    costs_figure,
    measured_figure,
)
from attnscope.app.mechanisms import RESULTS, Control, Mechanism
from attnscope.app.state import Key
from attnscope.kernels.patterns.rule_program import MOST_CHARACTERS
from attnscope.profiling.units import count, latency, nbytes, share

Answer = Mapping[str, Any]

_PAGE = "mechanisms"
_NEEDS = {
    "": "",
    "compiles": "It needs a C++ compiler, and its first call some seconds.",
    "triton": "On a GPU it runs compiled; with TRITON_INTERPRET=1 set, a CPU interprets it.",
}


def head(card: Mechanism, lacking: str) -> None:
    """Draw what it is: title, kind, whether it runs here, and the three sentences."""
    here = f"Not here: {lacking}" if lacking else "Runs on this machine."
    mark = "pg-not-here" if lacking else "pg-here"
    st.html(
        f'<div class="pg-card"><h2>{html.escape(card.title)}</h2>'
        f'<p class="pg-kind pg-{card.result}">{html.escape(RESULTS[card.result])}</p>'
        f'<p class="pg-quiet {mark}">{html.escape(here)}</p>'
        f"<p>{html.escape(' '.join(card.words))}</p></div>"
    )


def facts(card: Mechanism) -> None:
    """Draw its cost in symbols, its papers and the models that use it."""
    papers = ", ".join(
        f'<a href="{html.escape(paper.url)}" target="_blank" rel="noopener">'
        f"{html.escape(paper.title)}</a>"
        for paper in card.papers
    )
    rows = (
        ("compute", html.escape(card.compute)),
        ("extra memory", html.escape(card.memory)),
        ("paper" if len(card.papers) == 1 else "papers", papers),
        ("in use by", html.escape(", ".join(card.models))),
    )
    items = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows)
    st.html(f'<dl class="pg-about">{items}</dl>')


def claims(card: Mechanism) -> None:
    """Draw the wrong claims that are answered on this card, a quiet line each."""
    for claim in card.claims:
        st.html(
            f'<p class="pg-claim"><s>“{html.escape(claim.wrong)}”</s> '
            f"{html.escape(claim.right)}</p>"
        )


def mask_controls(
    controls: Sequence[Control],
    *,
    has_text: bool,
    offers_causal: bool,
    key: Callable[[str], str],
    on_change: Callable[[], None],
) -> None:
    """Draw the pattern's parameters; each widget is filled beforehand.

    Args:
        controls: Those of the card.
        has_text: Whether the pattern is a rule that the visitor writes.
        offers_causal: Whether composing with causal changes anything.
        key: Of the widget of a control.
        on_change: Called before the page is drawn anew.
    """
    columns = st.columns(len(controls) or 1)
    for column, control in zip(columns, controls, strict=False):
        column.select_slider(
            control.label,
            control.values,
            format_func=count,
            key=key(control.name),
            on_change=on_change,
        )
    if has_text:
        st.text_input(
            "Query i sees key j where",
            key=Key.MECHANISM_RULE,
            max_chars=MOST_CHARACTERS,
            on_change=on_change,
            help="Whole numbers, i, j, + - \\* // %, comparisons, and, or, not, abs, min, max and "
            "parentheses. The text is read, never run.",
        )
        st.caption("A matrix of booleans is uploaded, run and timed on the page Sparsity.")
    if offers_causal:
        st.checkbox("Causal: no later keys", key=Key.MECHANISM_CAUSAL, on_change=on_change)


def mask(card: Mechanism, answer: Answer) -> None:
    """Draw the mask by blocks, and what it keeps."""
    header = answer["header"]
    blocks = np.frombuffer(answer["body"], np.uint8).reshape(header["rows"], header["columns"])
    kept = (
        f"Of {count(header['tokens'] ** 2)} pairs of {count(header['tokens'])} tokens "
        f"{count(header['kept'])} are kept, {share(header['share'])}."
    )
    drawn = Mask(kinds=blocks, cell=header["block"], query_start=0, key_start=0)
    title = f"Mask of {header['title']}"
    shown, whole = (
        mask_figure(drawn, title=title, note=kept, look=look(), side=side) for side in (360, None)
    )
    chart(
        shown.update_layout(margin_t=40),
        mask_frame(drawn),
        name=f"{card.key}-mask",
        title=title,
        note=kept,
        of=_PAGE,
        exported=whole,
    )
    swatches = " ".join(
        f'<i class="pg-swatch" style="background:{colour}"></i>{word}'
        for colour, word in zip(colours(look()), KINDS, strict=True)
    )
    st.html(
        f'<p class="pg-quiet">{html.escape(kept)} By blocks of {header["block"]} tokens: {swatches}.</p>'
    )


def costs(card: Mechanism, answer: Answer) -> None:
    """Draw memory and arithmetic over length."""
    lengths, lines = answer["lengths"], answer["lines"]
    panels: list[tuple[Reading, Sequence[Answer]]] = []
    if answer["cache"] is not None:
        panels.append(("cache", answer["cache"]["lines"]))
    if lines:
        panels.append(("memory", [line for line in lines if "memory" in line]))
        panels.append(("flops", lines))
    if not panels:
        return
    st.html('<h3 class="pg-heading">What it costs over length, calculated</h3>')
    for column, (reading, shown) in zip(st.columns(len(panels)), panels, strict=True):
        value = "memory" if reading == "cache" else reading
        data = pd.DataFrame({"tokens": lengths} | {line["title"]: line[value] for line in shown})
        with column:
            st.html(f'<p class="pg-quiet">{READINGS[reading][0]}</p>')
            chart(
                costs_figure(shown, lengths, reading, look=look()),
                data,
                name=f"{card.key}-{reading}",
                title=card.title,
                note=cost_words(shown, lengths, reading),
                of=_PAGE,
            )
    st.html(f'<p class="pg-quiet">{html.escape(_costs_words(card, answer))}</p>')


def _costs_words(card: Mechanism, answer: Answer) -> str:
    words = []
    if answer["lines"]:
        formulas = "; ".join(
            f"{line['title']}: {line['formula']}" for line in answer["lines"] if "formula" in line
        )
        words.append(
            "One layer of 32 query heads of 128, bfloat16, one sequence, on a GPU; memory beyond q, k, v and the "
            f"output. {formulas}."
        )
    if answer["cache"] is not None:
        words.append(f"The cache is that of {answer['cache']['model']} in bfloat16, one sequence.")
    if card.controls:
        words.append("The pattern is as set above.")
    return " ".join(words)


def change(found: Answer) -> None:
    """Draw what it does to the demo model: the error of attention's output, and the loss."""
    layers = ", ".join(share(each) for each in found["by_layer"])
    beside = (
        " Both are taken without the model's causal rule, which it cannot keep."
        if found["bidirectional"]
        else " A pattern applies within the model's own rule."
    )
    losses = found.get("losses")
    loss = (
        f" With it in every layer the model's loss on text it has not seen is {losses['own']:.2f} nats a token, "
        f"against {losses['dense']:.2f}."
        if losses
        else ""
    )
    st.html('<h3 class="pg-heading">What it changes, on the demo model</h3>')
    st.html(
        f"<p>Attention's output differs from dense attention's by "
        f"<strong>{share(found['relative'])}</strong> of its size.{html.escape(loss)}</p>"
        f'<p class="pg-quiet">On its own q, k and v over {count(found["tokens"])} tokens, dense in float64. By layer: '
        f"{layers}.{html.escape(beside)} The demo was trained with dense attention.</p>"
    )


def measurement(
    card: Mechanism,
    record: Answer | None,
    *,
    measuring: bool,
    lacking: str,
    on_measure: Callable[[], None],
) -> None:
    """Draw what was measured here, and the button that measures.

    Args:
        card: The mechanism.
        record: The newest measurement of it as it is set; None where there is none.
        measuring: Whether a job is under way.
        lacking: Why it does not run here; empty where it does.
        on_measure: Called when the visitor asks for a measurement.
    """
    st.html('<h3 class="pg-heading">On this machine, measured</h3>')
    if lacking:
        st.html(f'<p class="pg-quiet">It cannot be timed here: {html.escape(lacking)}</p>')
        return
    with st.container(horizontal=True, vertical_alignment="center", key="measure"):
        st.button(
            "Measure again" if record else "Measure",
            type="secondary" if record else "primary",
            on_click=on_measure,
            disabled=measuring,
        )
        st.html(f'<p class="pg-quiet">{html.escape(_measure_words(card, record))}</p>')
    if record is None:
        return
    if card.trains:
        _trained(card, record)
        return
    _timed(card, record)


def _timed(card: Mechanism, record: Answer) -> None:
    """Draw times and memory over length, and what could not be measured."""
    cells = record["cells"]
    measured = [cell for cell in cells if not cell["failure"]]
    if measured:
        st.html(
            '<p class="pg-quiet">Left, the median time with its 10th to 90th percentile; right, the memory held at '
            "one moment besides q, k and v.</p>"
        )
        chart(
            measured_figure(cells, look=look()),
            pd.DataFrame(cells),
            name=f"{card.key}-measured",
            title=f"{card.title}, measured on {record['device']}",
            note=verdict(cells),
            of=_PAGE,
        )
        st.html(f'<p class="pg-quiet">{html.escape(verdict(cells))}</p>')
    if "cache" in record:
        st.html(f'<p class="pg-quiet">{html.escape(_cache_words(record["cache"]))}</p>')
    failed = [cell for cell in cells if cell["failure"]]
    if failed:
        rows = [(call_words(cell), count(cell["length"]), cell["failure"]) for cell in failed]
        plain_table("Could not be measured", rows, header=("call", "tokens", "why"))


def _trained(card: Mechanism, record: Answer) -> None:
    """Draw what pooling did to the demo's loss, and what the training gave back."""
    losses, curve = record["losses"], record["curve"]
    before, after = record["cache_bytes"]
    words = (
        f"Loss on text it has not seen, nats a token: {losses['checkpoint']:.3f} as it was, {losses['pooled']:.3f} "
        f"pooled, {losses['trained']:.3f} after {record['steps']} steps; the model as it is, trained as long, "
        f"{record['control']:.3f}. Cache of {count(record['cache_tokens'])} tokens: {nbytes(before)}, then "
        f"{nbytes(after)}."
    )
    chart(
        uptraining([(step, loss) for step, loss in curve], losses, look=look()),
        pd.DataFrame(curve, columns=["step", "loss"]),
        name=f"{card.key}-loss",
        title="Loss while the pooled demo is trained",
        note=words,
        of=_PAGE,
    )
    st.html(f'<p class="pg-quiet">{html.escape(words)}</p>')


def verdict(cells: Sequence[Answer]) -> str:
    """How the mechanism compares with dense attention at the longest length that both ran at."""
    at: dict[int, dict[str, Answer]] = {}
    for cell in cells:
        if not cell["failure"]:
            at.setdefault(cell["length"], {})[cell["name"]] = cell
    both = [length for length, found in at.items() if {"dense", "mechanism"} <= set(found)]
    if not both and any(cell["name"] == "mechanism" for cell in cells):
        return "Only dense attention could be measured."
    if not both:
        return "Dense attention alone was measured: it is what the others are held to."
    length = max(both)
    own, dense = at[length]["mechanism"], at[length]["dense"]
    words = (
        f"At {count(length)} tokens {latency(own['median_s'])} against {latency(dense['median_s'])} of dense "
        f"attention, {own['median_s'] / dense['median_s']:.2g} of its time, and {nbytes(own['peak_bytes'])} "
        f"against {nbytes(dense['peak_bytes'])}."
    )
    whole = at[length].get("everything")
    if whole is not None:
        words += (
            f" {call_words(whole)}: {latency(whole['median_s'])}, {nbytes(whole['peak_bytes'])}."
        )
    doubts = dict.fromkeys(filter(None, (own["unsettled"], dense["unsettled"])))
    return f"{words} Not settled: {'; '.join(doubts)}." if doubts else words


def snippet(card: Mechanism) -> None:
    """Draw the lines of Python that run it."""
    st.html('<h3 class="pg-heading">In Python</h3>')
    st.code(card.snippet.strip(), language="python")
    if card.snippet_needs:
        st.html(f'<p class="pg-quiet">{html.escape(_NEEDS[card.snippet_needs])}</p>')


def _measure_words(card: Mechanism, record: Answer | None) -> str:
    if card.timed is None:
        what = f"Times {card.title} and dense attention in turns on random tensors"
    else:
        what = card.timed.words
    if record is None:
        return what if card.trains else f"{what.rstrip('.')}. Four lengths, about half a minute."
    if card.trains:
        return f"{_when(record)}."
    shape = record["shape"]
    wide = f" of {shape['head_dim']}" if card.timed is None else ""
    shared = f", {record['group_size']} to a key/value head" if record["group_size"] > 1 else ""
    told = "" if card.timed is None else f" {what}"
    return (
        f"{_when(record)}: {shape['heads']} heads{wide}{shared}, {shape['dtype']}, random tensors, "
        f"in turns.{told}"
    )


def _cache_words(cache: Answer) -> str:
    agrees = "as" if cache["held"] == cache["calculated"] else "where"
    return (
        f"The latents of {count(cache['tokens'])} tokens took {nbytes(cache['held'])}, {agrees} the "
        f"calculator says {nbytes(cache['calculated'])} for a layer; keys and values of these heads, "
        f"expanded, took {nbytes(cache['expanded'])}."
    )


def _when(record: Answer) -> str:
    return f"{record['created'][:16].replace('T', ' ')} UTC, {record['device']}"
