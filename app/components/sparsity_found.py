"""What the page Sparsity shows: a mask with what it keeps, the grid of heads, and one head's patterns."""

import base64
import html
import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from PIL import Image, ImageColor

from attnscope.app.components.chart import files
from attnscope.app.figures.heads_grid import Heads, heads_frame, heads_grid
from attnscope.app.figures.mask import (
    KINDS,
    Mask,
    colours,
    kept_figure,
    kept_frame,
    mask_figure,
    mask_frame,
)
from attnscope.app.figures.theme import Theme
from attnscope.app.state import Key
from attnscope.app.words.sparsity import Row, mask_facts
from attnscope.profiling.units import count, share

Answer = Mapping[str, Any]

_PLOT = {"displaylogo": False, "displayModeBar": False, "typesetMath": False}
_SIDE, _GRID, _ROW, _MOST_ROWS = 224, 268, 34, 14


def mask_panel(
    answer: Answer,
    layers: Sequence[Answer],
    *,
    made: Answer | None,
    causal: bool,
    model: str,
    look: Theme,
) -> None:
    """Draw a mask, its legend and what it keeps.

    Args:
        answer: To `sparsity_mask`, or to `sparsity_fitted_mask`.
        layers: Of the capture's summary; of a mask made for one head, its layer, of that head alone.
        made: What was found of such a mask; None of a family's.
        causal: Whether its pairs are counted among those of the past.
        model: For the files' names.
        look: The colours.
    """
    header = {**answer["header"], "within_causal": causal}
    shape = header["rows"], header["cols"]
    kinds = np.frombuffer(answer["body"], np.uint8).reshape(shape)
    mask = Mask(kinds=kinds, cell=header["cell"], query_start=header["q0"], key_start=header["k0"])
    facts = mask_facts(header, layers, made)
    title = f"{header['title']}, {count(header['length'])} tokens"
    note = "; ".join(f"{name} {value}" for name, value, _ in facts)
    filed = mask_figure(mask, title=title, note=note, look=look)
    with st.container(key="chart_mask", gap=None):
        heading("Mask", title)
        st.plotly_chart(
            mask_figure(mask, title=title, note=note, look=look, side=_SIDE),
            theme=None,
            config=_PLOT,
            key="sparsity_mask_plot",
            alt=f"{title}. {note}",
        )
        st.html(_legend(mask, look) + _facts(facts))
        files(filed, mask_frame(mask), name="mask", title=title, note=note, of=model)


def own_panel(answer: Answer, *, title: str, model: str, look: Theme) -> None:
    """Draw a head's own mask, and what it keeps.

    Args:
        answer: To `sparsity_empirical`.
        title: Plain text.
        model: For the files' names.
        look: The colours.
    """
    header = answer["header"]
    shape = header["rows"], header["cols"]
    shares = np.frombuffer(answer["body"], "<f4").reshape(shape)
    median, most = header["keys"]
    facts = [
        ("pairs kept", share(header["kept"]), "of the pairs that the head shows"),
        ("mass kept", share(header["mass"]), "the mean over the queries"),
        ("keys of a query", f"{count(median)}, most {count(most)}", "the median, and the most"),
    ]
    note = "; ".join(f"{name} {value}" for name, value, _ in facts)
    drawn = partial(kept_figure, shares, header["length"], title=title, note=note, look=look)
    st.plotly_chart(
        drawn(side=_SIDE),
        theme=None,
        config=_PLOT,
        key="sparsity_own_plot",
        alt=f"{title}. {note}",
    )
    st.html(_facts(facts))
    files(
        drawn(),
        kept_frame(shares, header["length"]),
        name="own-mask",
        title=title,
        note=note,
        of=model,
    )


def heading(name: str, title: str) -> None:
    """Draw the name of a part, and beside it what it is of."""
    st.html(
        f'<h3 class="pg-sparsity-heading">{html.escape(name)} '
        f'<small title="{html.escape(title)}">{html.escape(title)}</small></h3>'
    )


def _legend(mask: Mask, look: Theme) -> str:
    shown = [0, 2] if mask.cell == 1 else [0, 1, 2]
    words = ("hidden", "visible") if mask.cell == 1 else KINDS
    items = "".join(
        f'<span><i class="pg-swatch" style="background:{colours(look)[kind]}"></i>{word}</span>'
        for kind, word in zip(shown, words, strict=True)
    )
    cell = (
        "every pair" if mask.cell == 1 else f"{count(mask.cell)} by {count(mask.cell)} pairs a cell"
    )
    return f'<p class="pg-legend">{items}<span>{cell}</span></p>'


def _facts(facts: Sequence[tuple[str, str, str]]) -> str:
    items = "".join(
        f'<div title="{html.escape(long)}"><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>'
        for name, value, long in facts
    )
    return f'<dl class="pg-facts pg-kept">{items}</dl>'


def grid_panel(
    heads: Heads,
    *,
    title: str,
    note: str,
    model: str,
    look: Theme,
    on_choose: Callable[[str], None],
) -> None:
    """Draw a square a head; a click chooses it.

    Args:
        heads: The numbers.
        title: Plain text.
        note: Plain text.
        model: For the files' names.
        look: The colours.
        on_choose: Called with the key of the chart when a square is clicked.
    """
    key = Key.SPARSITY_GRID
    st.plotly_chart(
        heads_grid(heads, title=title, note=note, look=look, width=_GRID),
        theme=None,
        config=_PLOT,
        key=key,
        width="content",
        on_select=lambda: on_choose(key),
        selection_mode="points",
        alt=f"{title}. {note}",
    )
    filed = heads_grid(heads, title=title, note=note, look=look)
    files(filed, heads_frame(heads), name=f"heads-{heads.name}", title=title, note=note, of=model)


def patterns_table(
    rows: Sequence[Row],
    *,
    best: int | None,
    chosen: int | None,
    look: Theme,
    on_choose: Callable[[str], None],
) -> None:
    """Draw what every pattern does to one head, a row a pattern; ticking one chooses it.

    Args:
        rows: At least one.
        best: The row that is best at the budget, or None.
        chosen: The row of the pattern chosen, or None.
        look: The colours.
        on_choose: Called with the table's key when the tick changes.
    """
    frame = pd.DataFrame(
        [
            {
                "mask": _thumbnail(row.thumbnail, look),
                "pattern": row.title,
                "best": "best" if at == best else "",
                "kept": row.kept,
                "mass": row.mass,
                "error": row.error,
                "all heads": row.all_heads,
            }
            for at, row in enumerate(rows)
        ]
    )
    # A tick is of a row number: another pattern chosen elsewhere is another table.
    key = f"sparsity_patterns_{len(rows)}_{chosen}"
    st.dataframe(
        frame,
        height=_ROW * (min(len(rows), _MOST_ROWS) + 1) + 3,
        row_height=_ROW,
        hide_index=True,
        column_config=_COLUMNS,
        key=key,
        on_select=lambda: on_choose(key),
        selection_mode="single-row",
        selection_default={"selection": {"rows": [] if chosen is None else [chosen]}},
        placeholder="",
        alt="; ".join(f"{row.title} {row.words}" for row in rows),
    )


def _thumbnail(kinds: Sequence[Sequence[int]], look: Theme) -> str:
    """A mask as a small picture, in a table's cell."""
    palette = np.array([ImageColor.getrgb(colour) for colour in colours(look)], np.uint8)
    picture = Image.fromarray(palette[np.array(kinds)]).resize((64, 64), Image.Resampling.NEAREST)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


_COLUMNS = {
    "mask": st.column_config.ImageColumn("", width=42),
    "pattern": st.column_config.TextColumn(width=172),
    "best": st.column_config.TextColumn("", width=42),
    "kept": st.column_config.NumberColumn(
        "pairs", format="percent", width=62, help="Pairs kept, of those that the model shows."
    ),
    "mass": st.column_config.NumberColumn(
        "mass", format="percent", width=62, help="Of this head's attention, on the pairs kept."
    ),
    "error": st.column_config.NumberColumn(
        "error", format="%.3f", width=56, help="Of this head's output, relative to dense attention."
    ),
    "all heads": st.column_config.NumberColumn(
        "all heads", format="percent", width=72, help="The mass kept, the mean over every head."
    ),
}
