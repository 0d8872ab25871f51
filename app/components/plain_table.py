"""A table of text in the page's own type: thin rules, real text, nothing that acts."""

import html
from collections.abc import Sequence

import streamlit as st


def plain_table(
    label: str, rows: Sequence[Sequence[str]], *, header: Sequence[str] = (), numbers: bool = False
) -> None:
    """Draw rows of plain text; the first cell of each names it.

    Args:
        label: What the table is, shown above it.
        rows: At least one, all of one length.
        header: Names of the columns; none draws names and values alone.
        numbers: Whether the cells after the first stand to the right.
    """
    kind = " pg-numbers" if numbers else ""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in header)
    body = "".join(
        f'<tr><th scope="row">{html.escape(first)}</th>'
        f"{''.join(f'<td>{html.escape(cell)}</td>' for cell in rest)}</tr>"
        for first, *rest in rows
    )
    st.html(
        f'<div class="pg-scroll"><table class="pg-table{kind}"><caption>{html.escape(label)}</caption>'
        f"{f'<thead><tr>{head}</tr></thead>' if head else ''}<tbody>{body}</tbody></table></div>"
    )
