"""Every chart as a file: interactive HTML, PNG, SVG, PDF, and its data as CSV, Parquet or JSON.

The HTML opens offline, see `files.offline`. Tokens and titles are text everywhere: no tag, formula or
template acts.
"""

import io
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pyarrow as pa
import pyarrow.parquet as pq

from attnscope.app.figures import theme as themes
from attnscope.app.figures.attention_map import READING_TITLES, MapData, attention_map
from attnscope.app.figures.diagnostics import Diagnostic, diagnostics
from attnscope.app.figures.overview import overview
from attnscope.app.figures.token_strip import token_strip
from attnscope.app.files.images import ImageServer
from attnscope.app.files.offline import offline_html
from attnscope.kernels.errors import InvalidCall

MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "png": "image/png",
    "svg": "image/svg+xml",
    "pdf": "application/pdf",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
    "json": "application/json",
}
WHAT = ("map", "overview", "diagnostics", "tokens")
ATTENTION_TITLES = {
    "cross": "cross-attention",
    "decoder": "the decoder's own attention",
    "encoder": "the encoder's attention",
}
"""Of an encoder-decoder, by the name that links and routes use."""
Arrays = Mapping[str, np.ndarray]


def export(
    summary: Mapping[str, Any],
    what: str,
    format: str,
    arrays: Arrays,
    view: Mapping[str, Any],
    *,
    images: ImageServer | None = None,
) -> tuple[bytes, str, str]:
    """Write one chart or its data as a file.

    Args:
        summary: The capture's summary: model, revision, backend, device, dtype, created, sequences
            with their tokens, layers.
        what: One of `WHAT`.
        format: A key of `MEDIA_TYPES`.
        arrays: For "map": `values` float32 [rows, columns], NaN where masked, with `row_edges` int
            [rows + 1] and `column_edges` int [columns + 1], or the region in `view` as q0, q1, k0
            and k1. For "overview": `values` float32 [layers, heads, rows, columns]. For
            "diagnostics": one float [layers, heads] for each key, in display order. For "tokens":
            `values` float32 [tokens], the attention of `view["pinned"]`.
        view: layer, head, sequence, reading, scale, pooling, pinned, direction, theme ("light" or
            "dark"), and for "diagnostics" `titles` and `units` by key.
        images: The warm drawing browser; without it one is started for this file alone.

    Returns:
        The file's bytes, its media type and its name.

    Raises:
        InvalidCall: No such chart or format, or arrays that do not fit.
        ImagesUnavailable: PNG, SVG or PDF without Chromium on the server.
    """
    if what not in WHAT:
        raise InvalidCall(f"No chart is called “{what}”.", f"Choose one of {', '.join(WHAT)}.")
    if format not in MEDIA_TYPES:
        raise InvalidCall(
            f"No export format is called “{format}”.", f"Choose one of {', '.join(MEDIA_TYPES)}."
        )
    return (
        _body(summary, what, format, arrays, view, images),
        MEDIA_TYPES[format],
        filename(summary, what, format, view),
    )


def figure_of(
    summary: Mapping[str, Any], what: str, arrays: Arrays, view: Mapping[str, Any]
) -> go.Figure:
    """Draw the figure that `export` writes."""
    return _FIGURES[what](summary, arrays, view)


def frame_of(
    summary: Mapping[str, Any], what: str, arrays: Arrays, view: Mapping[str, Any]
) -> pd.DataFrame:
    """Lay out the data that `export` writes as a table; masked cells are null."""
    return _FRAMES[what](summary, arrays, view)


def filename(
    summary: Mapping[str, Any],
    what: str,
    form: str,
    view: Mapping[str, Any],
    now: datetime | None = None,
) -> str:
    """Name a file <model>_<what>_<layer-head>_<UTC time>.<ext>, a head only where shown."""
    model = re.sub(r"[^A-Za-z0-9.-]+", "-", str(summary.get("model", ""))).strip("-.")[:60]
    head = f"L{int(view.get('layer', 0))}-H{int(view.get('head', 0))}_"
    attention = summary.get("attention", "self")
    what = what if attention == "self" else f"{attention}-{what}"
    time = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
    return (
        f"{model or 'model'}_{what}_{head if what.endswith(('map', 'tokens')) else ''}{time}.{form}"
    )


def _body(
    summary: Mapping[str, Any],
    what: str,
    form: str,
    arrays: Arrays,
    view: Mapping[str, Any],
    images: ImageServer | None,
) -> bytes:
    if form in TABLE_WRITERS:
        return TABLE_WRITERS[form](
            frame_of(summary, what, arrays, view), _origin(summary, what, view)
        )
    figure = figure_of(summary, what, arrays, view)
    if form == "html":
        title, note = _title(summary, what, view), themes.caption(summary, view)
        return offline_html(figure, title=title, note=note)
    drawing = json.loads(str(figure.to_json()))
    if images is not None:
        return images.draw(drawing, form=form)
    with ImageServer() as alone:
        return alone.draw(drawing, form=form)


def _title(summary: Mapping[str, Any], what: str, view: Mapping[str, Any]) -> str:
    model = summary.get("model", "")
    attention = summary.get("attention", "self")
    model = model if attention == "self" else f"{model} · {ATTENTION_TITLES[attention]}"
    head = f"layer {view.get('layer', 0)}, head {view.get('head', 0)}"
    if what == "map":
        reading = READING_TITLES.get(view.get("reading", "weight"), "")
        return f"{model} · {head} · {reading}"
    if what == "tokens":
        side = "received by" if view.get("direction") == "receives" else "paid by"
        return f"{model} · {head} · attention {side} token {view.get('pinned', 0)}"
    return f"{model} · {'all heads' if what == 'overview' else 'diagnostics of every head'}"


def _frame_style(summary: Mapping[str, Any], what: str, view: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "title": _title(summary, what, view),
        "note": themes.caption(summary, view),
        "look": themes.theme(view.get("theme", "light")),
    }


def _map_data(summary: Mapping[str, Any], arrays: Arrays, view: Mapping[str, Any]) -> MapData:
    values = _array(arrays, "values", 2)
    rows, columns = values.shape
    queries, keys = sides_of(_sequence(summary, view), "pays")
    return MapData(
        values=values,
        row_edges=_edges(arrays, "row_edges", view, ("q0", "q1"), rows),
        column_edges=_edges(arrays, "column_edges", view, ("k0", "k1"), columns),
        query_tokens=queries,
        key_tokens=keys,
        reading=view.get("reading", "weight"),
    )


def _edges(
    arrays: Arrays, name: str, view: Mapping[str, Any], ends: tuple[str, str], count: int
) -> np.ndarray:
    if name in arrays:
        edges = np.asarray(arrays[name]).astype(np.int64)
        if edges.shape != (count + 1,):
            raise InvalidCall(f"{name} must hold {count + 1} positions, got {edges.shape}.")
        return edges
    first, last = int(view.get(ends[0], 0)), int(view.get(ends[1], count))
    # As the maps are binned: integer division, so that bins differ by at most one position.
    return first + np.arange(count + 1) * (last - first) // count


def _array(arrays: Arrays, name: str, dimensions: int) -> np.ndarray:
    values = np.asarray(arrays.get(name, np.empty(0)))
    if values.ndim != dimensions or not values.size:
        raise InvalidCall(f"{name} must have {dimensions} dimensions, got shape {values.shape}.")
    return values


def sides_of(sequence: Mapping[str, Any], direction: str) -> tuple[list[str], list[str]]:
    """The tokens that can be asked about, and those they attend to or are attended by."""
    queries = [str(token) for token in sequence["tokens"]]
    keys = sequence.get("keys")
    read = queries if keys is None else [str(token) for token in keys["tokens"]]
    return (queries, read) if direction == "pays" else (read, queries)


def _sequence(summary: Mapping[str, Any], view: Mapping[str, Any]) -> Mapping[str, Any]:
    sequences = summary["sequences"]
    sequence = int(view.get("sequence", 0))
    if not 0 <= sequence < len(sequences):
        raise InvalidCall(f"There are {len(sequences)} prompts; number {sequence} is none of them.")
    return sequences[sequence]


def _map_figure(summary: Mapping[str, Any], arrays: Arrays, view: Mapping[str, Any]) -> go.Figure:
    data = _map_data(summary, arrays, view)
    style = _frame_style(summary, "map", view)
    pooling = view.get("pooling", "max")
    style["note"] += " · every cell exact" if data.exact else f" · cells pooled by {pooling}"
    return attention_map(data, scale=view.get("scale", "log"), pooling=pooling, **style)


def _overview_figure(
    summary: Mapping[str, Any], arrays: Arrays, view: Mapping[str, Any]
) -> go.Figure:
    style = _frame_style(summary, "overview", view)
    return overview(_array(arrays, "values", 4), numbers=_numbers(summary), **style)


def _diagnostics_figure(
    summary: Mapping[str, Any], arrays: Arrays, view: Mapping[str, Any]
) -> go.Figure:
    titles, units = view.get("titles", {}), view.get("units", {})
    rows = [
        Diagnostic(
            title=titles.get(key, key.replace("_", " ")),
            unit=units.get(key, ""),
            values=_array(arrays, key, 2),
        )
        for key in arrays
    ]
    if not rows:
        raise InvalidCall("There is no diagnostic to draw.")
    style = _frame_style(summary, "diagnostics", view)
    return diagnostics(rows, layers=_numbers(summary), **style)


def _tokens_figure(
    summary: Mapping[str, Any], arrays: Arrays, view: Mapping[str, Any]
) -> go.Figure:
    tokens, values = _token_weights(summary, arrays, view)
    style = _frame_style(summary, "tokens", view)
    # Between two texts the token asked about is not among those that light up.
    pinned = view.get("pinned") if _sequence(summary, view).get("keys") is None else None
    return token_strip(tokens, values, pinned=pinned, **style)


def _token_weights(
    summary: Mapping[str, Any], arrays: Arrays, view: Mapping[str, Any]
) -> tuple[list[str], np.ndarray]:
    _, tokens = sides_of(_sequence(summary, view), view.get("direction", "pays"))
    values = _array(arrays, "values", 1)
    if len(tokens) < len(values):
        raise InvalidCall(f"{len(values)} weights do not fit {len(tokens)} tokens.")
    return tokens[: len(values)], values


def _map_frame(summary: Mapping[str, Any], arrays: Arrays, view: Mapping[str, Any]) -> pd.DataFrame:
    data = _map_data(summary, arrays, view)
    rows, columns = data.values.shape
    query, key = np.repeat(np.arange(rows), columns), np.tile(np.arange(columns), rows)
    frame = {
        "query_first": data.row_edges[:-1][query],
        "query_last": data.row_edges[1:][query] - 1,
        "key_first": data.column_edges[:-1][key],
        "key_last": data.column_edges[1:][key] - 1,
    }
    if data.exact:
        queries, keys = (
            np.array(each, dtype=object) for each in (data.query_tokens, data.key_tokens)
        )
        frame["query_token"] = queries[data.row_edges[:-1]][query]
        frame["key_token"] = keys[data.column_edges[:-1]][key]
    return pd.DataFrame({**frame, data.reading: np.asarray(data.values, np.float32).ravel()})


def _overview_frame(
    summary: Mapping[str, Any], arrays: Arrays, view: Mapping[str, Any]
) -> pd.DataFrame:
    values = _array(arrays, "values", 4)
    layer, head, row, column = np.indices(values.shape).reshape(4, -1)
    return pd.DataFrame(
        {
            "layer": np.array(_numbers(summary))[layer],
            "head": head,
            "row": row,
            "column": column,
            "weight": np.asarray(values, np.float32).ravel(),
        }
    )


def _diagnostics_frame(
    summary: Mapping[str, Any], arrays: Arrays, view: Mapping[str, Any]
) -> pd.DataFrame:
    columns = {key: _array(arrays, key, 2) for key in arrays}
    if not columns:
        raise InvalidCall("There is no diagnostic to write.")
    layer, head = np.indices(next(iter(columns.values())).shape).reshape(2, -1)
    numbers = {key: np.asarray(values, np.float32).ravel() for key, values in columns.items()}
    return pd.DataFrame({"layer": np.array(_numbers(summary))[layer], "head": head, **numbers})


def _numbers(summary: Mapping[str, Any]) -> list[int]:
    """The model's own numbers of the captured layers, which may be only some."""
    return [layer["index"] for layer in summary["layers"]]


def _tokens_frame(
    summary: Mapping[str, Any], arrays: Arrays, view: Mapping[str, Any]
) -> pd.DataFrame:
    tokens, values = _token_weights(summary, arrays, view)
    return pd.DataFrame(
        {
            "position": np.arange(len(tokens)),
            "token": np.array(tokens, dtype=object),
            view.get("reading", "weight"): np.asarray(values, np.float32),
        }
    )


def _origin(summary: Mapping[str, Any], what: str, view: Mapping[str, Any]) -> dict[str, str]:
    shown = {key: str(view[key]) for key in _ORIGIN[what] if view.get(key) is not None}
    return {"title": _title(summary, what, view), **themes.provenance(summary, view), **shown}


def _csv(frame: pd.DataFrame, origin: dict[str, str]) -> bytes:
    # Quoted as JSON: a token such as "=1+1" would be a formula to a spreadsheet.
    texts = [name for name in frame.columns if not pd.api.types.is_numeric_dtype(frame[name])]
    quoted = frame.assign(**{name: frame[name].map(json.dumps) for name in texts})
    renamed = quoted.rename(columns={name: f"{name}_json" for name in texts})
    return renamed.to_csv(index=False, lineterminator="\n").encode()


def _parquet(frame: pd.DataFrame, origin: dict[str, str]) -> bytes:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    named = {f"attnscope.{key}": value for key, value in origin.items()}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **named})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _json(frame: pd.DataFrame, origin: dict[str, str]) -> bytes:
    columns = {
        name: [None if isinstance(x, float) and x != x else x for x in frame[name].tolist()]
        for name in frame.columns
    }
    document = {"origin": origin, "columns": columns}
    return json.dumps(document, ensure_ascii=False, allow_nan=False).encode()


# What decided the numbers of each chart.
_ORIGIN = {
    "map": ("layer", "head", "sequence", "reading", "pooling"),
    "overview": ("sequence",),
    "diagnostics": ("sequence",),
    "tokens": ("layer", "head", "sequence", "reading", "pinned", "direction"),
}
_FIGURES: dict[str, Callable[..., go.Figure]] = {
    "map": _map_figure,
    "overview": _overview_figure,
    "diagnostics": _diagnostics_figure,
    "tokens": _tokens_figure,
}
_FRAMES: dict[str, Callable[..., pd.DataFrame]] = {
    "map": _map_frame,
    "overview": _overview_frame,
    "diagnostics": _diagnostics_frame,
    "tokens": _tokens_frame,
}
TABLE_WRITERS: dict[str, Callable[[pd.DataFrame, dict[str, str]], bytes]] = {
    "csv": _csv,
    "parquet": _parquet,
    "json": _json,
}
"""Each writes a table, and where it comes from, as a file."""
