"""Pages that open offline: plotly.js is packed in them, once, and a policy forbids any request, so they stay silent."""

import base64
import functools
import gzip
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from attnscope.app.figures.theme import FONT, LIGHT, Theme
from attnscope.kernels.errors import InvalidCall
from attnscope.profiling.units import nbytes

LARGEST_REPORT = 5_000_000
"""Bytes; plotly.js takes two of the five million, packed."""

_DRAWING = Path(__file__).with_name("drawing.js")

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:"
)
_CONFIG = {"displaylogo": False, "responsive": True, "typesetMath": False, "plotlyServerURL": ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of a report: a figure, a table, or both. All texts are plain.

    Attributes:
        heading: Over it.
        figure: Drawn first.
        words: Of the figure, for who cannot see it; or what there is to say in its place.
        header: Of the table's columns; may be empty.
        rows: Of the table, the first cell of each its name.
    """

    heading: str
    figure: go.Figure | None = None
    words: str = ""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


def offline_html(figure: go.Figure, *, title: str, note: str) -> bytes:
    """Write a figure as one page that needs no network and is allowed none.

    Args:
        figure: The figure.
        title: The page's title, plain text.
        note: Alternative text and caption, plain text.
    """
    layout: Any = figure.layout
    look, colour = layout.paper_bgcolor, layout.font.color
    style = (
        f"body{{margin:0;background:{look};color:{colour}}}"
        "figure{margin:0}figcaption{font:13px sans-serif;padding:0 84px 24px}"
    )
    body = (
        f'<figure role="figure" aria-label="{html.escape(title)}">{_drawn(figure)}'
        f"<figcaption>{html.escape(title)}. {html.escape(note)}</figcaption></figure>"
    )
    return _page(body, title=title, style=style, draws=True)


def offline_report(
    sections: Sequence[Section], *, title: str, note: str, look: Theme = LIGHT
) -> bytes:
    """Write figures and tables as one page that needs no network and is allowed none.

    Args:
        sections: In order.
        title: The page's title, plain text.
        note: Where it all comes from, plain text.
        look: The colours.

    Raises:
        InvalidCall: It would take more than `LARGEST_REPORT`.
    """
    body = "".join(
        [
            f"<main><h1>{html.escape(title)}</h1>",
            *map(_section, sections),
            f"<footer>{html.escape(note)}</footer></main>",
        ]
    )
    draws = any(each.figure is not None for each in sections)
    found = _page(body, title=title, style=_style(look), draws=draws)
    if len(found) > LARGEST_REPORT:
        raise InvalidCall(
            f"The report would take {nbytes(len(found))}, and {nbytes(LARGEST_REPORT)} is the limit.",
            "Choose fewer runs, or export them as JSON Lines or Parquet.",
        )
    return found


def _section(each: Section) -> str:
    heading = html.escape(each.heading)
    parts = [f'<section aria-label="{heading}"><h2>{heading}</h2>']
    if each.figure is not None:
        words = html.escape(f"{each.heading}. {each.words}")
        parts.append(f'<figure role="figure" aria-label="{words}">{_drawn(each.figure)}</figure>')
    elif each.words:
        parts.append(f"<p>{html.escape(each.words)}</p>")
    if each.rows:
        parts.append(_table(each.header, each.rows))
    return "".join([*parts, "</section>"])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in header)
    body = "".join(
        f'<tr><th scope="row">{html.escape(first)}</th>'
        f"{''.join(f'<td>{html.escape(cell)}</td>' for cell in rest)}</tr>"
        for first, *rest in rows
    )
    head = f"<thead><tr>{head}</tr></thead>" if header else ""
    return f"<div><table>{head}<tbody>{body}</tbody></table></div>"


def _drawn(figure: go.Figure) -> str:
    """Its place, and what is to be drawn there as JSON, of which no text can end the script."""
    told = json.loads(figure.to_json() or "") | {"config": _CONFIG}
    text = json.dumps(told, ensure_ascii=False).replace("<", r"\u003c")
    return f'<div class="chart"></div><script type="application/json">{text}</script>'


@functools.cache
def _packed_plotly() -> str:
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def _page(body: str, *, title: str, style: str, draws: bool) -> bytes:
    scripts = (
        f'<script type="text/plain" id="plotly">{_packed_plotly()}</script>'
        f"<script>{_DRAWING.read_text(encoding='utf-8')}</script>"
        "<noscript>The charts are drawn by scripts, which this browser does not run.</noscript>"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="referrer" content="no-referrer">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{style}</style>"
        f"</head><body>{body}{scripts * draws}</body></html>\n"
    ).encode()


def _style(look: Theme) -> str:
    rule = f"1px solid {look.rule}"
    return (
        f"body{{margin:0;background:{look.ground};color:{look.text};font:14px/1.45 {FONT};"
        "font-variant-numeric:tabular-nums}"
        "main{max-width:1080px;margin:0 auto;padding:24px}"
        "h1{font-size:20px;font-weight:600;margin:0 0 20px}"
        "h2{font-size:15px;font-weight:600;margin:28px 0 6px}"
        "figure{margin:0}section>div{overflow-x:auto}"
        "table{border-collapse:collapse;font-size:13px}"
        f"th,td{{padding:3px 18px 3px 0;border-bottom:{rule};text-align:start;vertical-align:top;font-weight:400}}"
        f"thead th,p,footer{{color:{look.muted}}}tbody th{{font-weight:600;white-space:nowrap}}"
        f"footer{{margin-top:28px;padding-top:8px;border-top:{rule};font-size:12px;overflow-wrap:anywhere}}"
    )
