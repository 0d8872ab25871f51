"""A table on a terminal: rich draws it where it is installed, else it is lines of text."""

import importlib
import sys
from collections.abc import Collection, Sequence
from typing import Any, TextIO


def say_table(
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Collection[int] = (),
    to: TextIO | None = None,
) -> None:
    """Prints rows of text under a header; only the last column may wrap.

    Args:
        title: Stands above.
        header: Of the columns.
        rows: The rows.
        right: The columns that stand to the right.
        to: Where; standard output when None.
    """
    where = to or sys.stdout
    rich = rich_modules("table", "text", "console")
    if rich is None or not where.isatty():
        _say_plainly(where, title, header, rows, right)
        return
    tables, texts, consoles = rich
    table = tables.Table(title=title, title_justify="left", box=None, pad_edge=False)
    for at, name in enumerate(header):
        side = "right" if at in right else "left"
        table.add_column(name, justify=side, no_wrap=at + 1 < len(header))
    for row in rows:
        # As Text: a reason may hold what rich would take for markup.
        table.add_row(*map(texts.Text, row))
    consoles.Console(file=where, highlight=False).print(table)


def rich_modules(*modules: str) -> list[Any] | None:
    """Modules of rich; None where it is not installed, as on a machine that only measures."""
    try:
        return [importlib.import_module(f"rich.{module}") for module in modules]
    except ImportError:
        return None


def _say_plainly(
    to: TextIO,
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Collection[int],
) -> None:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [title]
    for row in (header, *rows):
        cells = [
            cell.rjust(width) if at in right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    encoding = to.encoding or "utf-8"
    text = "\n".join(lines) + "\n"
    to.write(text.encode(encoding, "replace").decode(encoding))
