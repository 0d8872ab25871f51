"""The questions a worker answers about its captures; each returns JSON, and numbers as bytes under `body`.

B batch, H query heads, G kv heads, Q, K positions, D head dim.
"""

import json
import math
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from attnscope.app.jobs.calculations import CALCULATION_ASKS
from attnscope.app.jobs.capture_summary import describe, of_kind
from attnscope.app.jobs.check_answers import CHECK_ASKS
from attnscope.app.jobs.context import Context
from attnscope.app.jobs.diagnostic_words import diagnostic_words
from attnscope.app.jobs.generation_answers import GENERATION_ASKS
from attnscope.app.jobs.kept_answers import keep, kept, rounded
from attnscope.app.jobs.mechanism_answers import MECHANISM_ASKS
from attnscope.app.jobs.memo import Memo
from attnscope.app.jobs.needle_answers import NEEDLE_ASKS
from attnscope.app.jobs.profile_answers import PROFILE_ASKS
from attnscope.app.jobs.quantise import quantise
from attnscope.app.jobs.rollout_work import ROLLOUT_ASKS
from attnscope.app.jobs.shelf import CaptureShelf
from attnscope.app.jobs.sparsity_answers import SPARSITY_ASKS
from attnscope.app.jobs.tables import Ask
from attnscope.kernels.errors import InvalidCall

if TYPE_CHECKING:
    from attnscope.kernels.head import Head
    from attnscope.models.captured import Capture, LayerView

MOST_CELLS = 512  # a side; what a screen shows and a wire carries quickly
FIRST_PAIRS = 12_000_000  # pairs of 64 dimensions that one thread pools in about 150 ms
_LEFT_OUT = (
    "Induction, previous and duplicate tokens, distances and windows are left out: they mean something only "
    "where a key and its query are tokens of one text."
)
_SCALES = {"weight": "log", "score": "linear", "value_weighted": "log"}

Answer = dict[str, Any]
Arguments = dict[str, Any]


def prepare() -> None:
    """Import what the first answer needs, while nobody waits for it."""
    from attnscope.kernels import maps
    from attnscope.models import captured, heads

    del maps, captured, heads


def shelf(context: Context) -> CaptureShelf:
    """The captures of this worker's data folder."""

    def make() -> CaptureShelf:
        from attnscope.models.captured import Capture

        settings = context.settings
        return CaptureShelf(
            settings.captures_folder,
            Capture.load,
            memory_bytes=settings.capture_memory_bytes,
            disk_bytes=settings.capture_disk_bytes,
        )

    return context.resources.get("captures", make)


def summary(arguments: Arguments, context: Context) -> Answer:
    """What a capture holds, without its numbers."""
    whole = _whole(arguments, context)
    return describe(arguments["capture"], whole, arguments.get("attention"))


def attention_map(arguments: Arguments, context: Context) -> Answer:
    """A rectangle of one head, at most 512 × 512 cells; `effort="first"` reads no more than a moment allows."""
    return _memo(context).get(_key("map", arguments), lambda: _attention_map(arguments, context))


def _attention_map(arguments: Arguments, context: Context) -> Answer:
    from attnscope.kernels import maps

    head = _head(arguments, context)
    reading = arguments.get("reading", "weight")
    queries = _range(arguments, "q", head.query_length)
    keys = _range(arguments, "k", head.key_length)
    rows, columns = (
        min(int(arguments.get(name, MOST_CELLS)), MOST_CELLS) for name in ("rows", "cols")
    )
    height, width = queries.stop - queries.start, keys.stop - keys.start
    is_exact, sampled = height <= rows and width <= columns, None
    if is_exact:
        tile_RC = maps.tile(head, queries, keys, reading=reading)
        tile_RC = tile_RC.masked_fill(~maps.mask_tile(head, queries, keys), math.nan)
    else:
        pooled = _pooled(head, (rows, columns), (queries, keys), arguments, context)
        tile_RC, sampled = pooled.values, pooled.sampled_rows
    values = cast("NDArray[np.float32]", tile_RC.cpu().numpy())
    header = {
        "rows": values.shape[0],
        "cols": values.shape[1],
        "q0": queries.start,
        "q1": queries.stop,
        "k0": keys.start,
        "k1": keys.stop,
        "exact": is_exact,
        "sampled": sampled,
        "reading": reading,
        "reduce": arguments.get("reduce", "mean"),
    }
    return _encoded(values, header, arguments.get("encoding", "u8"), _SCALES[reading])


def _pooled(
    head: "Head",
    shape: tuple[int, int],
    region: tuple[slice, slice],
    arguments: Arguments,
    context: Context,
):
    import torch

    from attnscope.kernels import maps

    (rows, columns), (queries, keys) = shape, region
    options = {
        "reduce": arguments.get("reduce", "mean"),
        "reading": arguments.get("reading", "weight"),
        "queries": queries,
        "keys": keys,
        "progress": context.progress,
    }
    if arguments.get("effort", "first") == "first":
        cost = maps.pair_cost(head, queries, keys) * head.q_QD.shape[-1] / 64
        budget = FIRST_PAIRS * torch.get_num_threads()
        if cost > budget:
            height = queries.stop - queries.start
            each = int(height / min(rows, height) * budget / cost)
            return maps.sampled(head, rows, columns, queries_per_row=max(each, 1), **options)
    return maps.pooled(head, rows, columns, **options)


def _encoded(values: NDArray[np.float32], header: Answer, encoding: str, scale: Any) -> Answer:
    if encoding == "f32":
        seen = values[~np.isnan(values)]
        lo, hi = (float(seen.min()), float(seen.max())) if seen.size else (0.0, 0.0)
        header = {
            **header,
            "encoding": "f32",
            "scale": "linear",
            "lo": lo,
            "hi": hi,
            "masked": "NaN",
        }
        return {"header": header, "body": values.astype("<f4").tobytes()}
    coded = quantise(values, scale)
    meaning = {
        "encoding": "u8",
        "scale": coded.scale,
        "lo": coded.lo,
        "hi": coded.hi,
        "masked": 255,
    }
    return {"header": {**header, **meaning}, "body": coded.codes.tobytes()}


def row(arguments: Arguments, context: Context) -> Answer:
    """What one query reads: float32 `[K]`, NaN where masked."""
    from attnscope.kernels import maps

    head, query = _head(arguments, context), int(arguments["query"])
    values = maps.row(head, query, reading=arguments.get("reading", "weight"))
    seen = maps.mask_tile(head, slice(query, query + 1), slice(None))[0]
    return _line(values.masked_fill(~seen, math.nan), {"query": query})


def column(arguments: Arguments, context: Context) -> Answer:
    """Who reads one key: float32 `[Q]`, NaN where masked."""
    from attnscope.kernels import maps

    head, key = _head(arguments, context), int(arguments["key"])
    values = maps.column(head, key, reading=arguments.get("reading", "weight"))
    seen = maps.mask_tile(head, slice(None), slice(key, key + 1))[:, 0]
    return _line(values.masked_fill(~seen, math.nan), {"key": key})


def _line(values: Any, header: Answer) -> Answer:
    body = values.float().cpu().numpy().astype("<f4").tobytes()
    return {
        "header": {**header, "length": len(values), "encoding": "f32", "masked": "NaN"},
        "body": body,
    }


def overview(arguments: Arguments, context: Context) -> Answer:
    """Every head as a thumbnail: uint8 `[layers, heads, size, size]` on one logarithmic scale, 255 masked."""
    return _memo(context).get(_key("overview", arguments), lambda: _overview(arguments, context))


def _overview(arguments: Arguments, context: Context) -> Answer:
    capture = _capture(arguments, context)
    sequence = _sequence(arguments, capture)
    size, reduce = int(arguments.get("size", 48)), arguments.get("reduce", "max")
    drawn = []
    for place, layer in enumerate(capture.layers):
        context.progress(place / len(capture.layers))
        drawn.append(_thumbnails(capture.view(layer.layer, sequence), size, reduce))
    shape = tuple(max(part.shape[i] for part in drawn) for i in range(3))
    values = np.full((len(drawn), *shape), np.nan, np.float32)
    for place, part in enumerate(drawn):
        values[place, : part.shape[0], : part.shape[1], : part.shape[2]] = part
    header = {
        "shape": list(values.shape),
        "layers": [layer.layer for layer in capture.layers],
        "reduce": reduce,
    }
    return _encoded(values, header, "u8", "log")


def _thumbnails(layer: "LayerView", size: int, reduce: Any) -> NDArray[np.float32]:
    import torch

    from attnscope.kernels import maps

    heads, queries, _ = layer.q_HQD.shape
    # An eighth of a moment for each layer; all queries where that is enough.
    share = FIRST_PAIRS * torch.get_num_threads() / 8 / (heads * queries * layer.k_GKD.shape[1])
    pooled = maps.overview(
        layer.q_HQD,
        layer.k_GKD,
        layer.lse_HQ,
        pattern=layer.pattern,
        query_offset=layer.query_offset,
        scale=layer.scale,
        softcap=layer.softcap,
        visible_keys_K=layer.visible_keys_K,
        distance_bias_HR=layer.distance_bias_HR,
        size=size,
        reduce=reduce,
        queries_per_row=None if share >= 1 else max(1, int(share * queries / size)),
    )
    return pooled.values.cpu().numpy()


def diagnostics(arguments: Arguments, context: Context) -> Answer:
    """Every diagnostic of every head, computed once and kept beside the capture."""
    return _memo(context).get(
        _key("diagnostics", arguments), lambda: _diagnostics(arguments, context)
    )


def _diagnostics(arguments: Arguments, context: Context) -> Answer:
    from attnscope.models.heads import KEYS, diagnose_capture

    capture = _capture(arguments, context)
    sequence = _sequence(arguments, capture)
    name = f"diagnostics-{capture.attentions[0]}-{sequence}.json"
    place = shelf(context).folder(arguments["capture"]) / name
    known = kept(place)
    if known is not None:
        return known
    found = diagnose_capture(capture, sequence=sequence, progress=context.progress)
    answer = {
        "keys": [words for words in diagnostic_words() if words["key"] in found],
        "values": {key: rounded(values) for key, values in found.items()},
        "note": "" if len(found) == len(KEYS) else _LEFT_OUT,
    }
    keep(place, answer)
    return answer


def _whole(arguments: Arguments, context: Context) -> "Capture":
    return cast("Capture", shelf(context).get(str(arguments["capture"])))


def _capture(arguments: Arguments, context: Context) -> "Capture":
    """The kind of attention that is asked about; the first when none is named."""
    return of_kind(_whole(arguments, context), arguments.get("attention"))


def _sequence(arguments: Arguments, capture: "Capture") -> int:
    sequence = int(arguments.get("sequence", 0))
    if not 0 <= sequence < len(capture.tokens):
        raise InvalidCall(
            f"There is no sequence {sequence}: the capture has {len(capture.tokens)}."
        )
    return sequence


def _head(arguments: Arguments, context: Context) -> "Head":
    capture = _capture(arguments, context)
    layer = int(arguments.get("layer", 0))
    held = [one.layer for one in capture.layers]
    if layer not in held:
        # Not CaptureMissing: the capture is there, and the page must not think it gone.
        raise InvalidCall(
            f"This capture holds no layer {layer}.", f"It holds {', '.join(map(str, held))}."
        )
    return capture.head(layer, int(arguments.get("head", 0)), _sequence(arguments, capture))


def _range(arguments: Arguments, axis: str, length: int) -> slice:
    start = int(arguments.get(f"{axis}0", 0))
    stop = min(int(arguments.get(f"{axis}1", length)), length)
    if not 0 <= start < stop:
        raise InvalidCall(
            f"{axis}0 must be below {axis}1 and within 0 to {length}, got {start} and {stop}."
        )
    return slice(start, stop)


def _memo(context: Context) -> Memo:
    return context.resources.get("answers", lambda: Memo(context.settings.answer_cache_bytes))


def _key(method: str, arguments: Arguments) -> str:
    return method + json.dumps(arguments, sort_keys=True)


def backends(arguments: Arguments, context: Context) -> Answer:
    """Every backend, and why this worker's device refuses it for the capture's calls (or an ordinary one)."""
    from attnscope.app.jobs.backends_offered import offered

    capture = _whole(arguments, context) if arguments.get("capture") else None
    return {"backends": offered(capture, context)}


ASKS = {
    "backends": Ask(backends, at="worker"),
    "summary": Ask(summary),
    "map": Ask(attention_map),
    "exact_map": Ask(attention_map, lane="long"),
    "row": Ask(row),
    "column": Ask(column),
    "overview": Ask(overview, lane="patient"),
    "diagnostics": Ask(diagnostics, lane="long"),
    **CALCULATION_ASKS,
    **PROFILE_ASKS,
    **MECHANISM_ASKS,
    **SPARSITY_ASKS,
    **ROLLOUT_ASKS,
    **CHECK_ASKS,
    **GENERATION_ASKS,
    **NEEDLE_ASKS,
}
