"""Attention maps from q, k and the log-sum-exp: exact near, pooled from afar, never a Q × K array.

A weight is `exp(score − log-sum-exp)`, so any rectangle of a head's map costs one small matrix
product, at any length and whatever backend ran. Tiles, pooled maps and overviews of tensors on a GPU
are computed by Triton's kernels, all else by PyTorch; `kernels/cells.py` states the rule, and `by`
demands one of them. Single rows and columns are always PyTorch's: one product of a vector.

H query heads, G kv heads, Q, K positions, D head dim; R queries and C keys of a rectangle; M rows and
N columns of a map.
"""

from dataclasses import replace
from typing import get_args

import torch
from torch import Tensor

from attnscope.kernels import distance_bias
from attnscope.kernels.bins import bin_edges
from attnscope.kernels.cells import Asked, By, Pooled, chosen, map_of
from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.head import Head
from attnscope.kernels.log_sum_exp import log_sum_exp
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.pooling import Progress, Reading, Reduce
from attnscope.kernels.scores import accumulation_dtype, scores
from attnscope.kernels.streaming import Layer, exponentials, segments

__all__ = [
    "By",
    "Head",
    "Pooled",
    "Reading",
    "Reduce",
    "column",
    "edges",
    "log_sum_exp",
    "mask_tile",
    "overview",
    "pair_cost",
    "pooled",
    "row",
    "sampled",
    "tile",
]

EVERYTHING = slice(None)
LINE_PIECE = 8192  # keys read at once for a row, queries for a column


def tile(
    head: Head,
    queries: slice,
    keys: slice,
    *,
    reading: Reading = "weight",
    by: By | None = None,
) -> Tensor:
    """One number a pair, exact, of any rectangle.

    Readings: "weight" is the softmax weight; "score" what the softmax is taken of, scale and
    softcap and bias included; "value_weighted" the weight times the norm of the value, ‖α·v‖
    (arXiv 2004.10102 §2).

    Args:
        head: The head.
        queries: Of the head's queries, by index; step 1.
        keys: Of the head's keys.
        reading: What to read of each pair.
        by: Who computes; by the rule of `kernels/cells.py` when None.

    Returns:
        float32 `[R, C]`. A masked pair is NaN for scores and 0 for weights (see `mask_tile`).

    Raises:
        InvalidCall: An empty rectangle, a step other than 1, an unknown reading, or no value norms.
        UnsupportedCall: Triton was demanded and does not take the head.
    """
    rows, columns = _region(queries, head.query_length), _region(keys, head.key_length)
    norm_K = _value_norm(head, reading)
    if chosen(head.layer, by) == "triton":
        # A map as fine as its head.
        shape, region = (len(rows), len(columns)), (queries, keys)
        whole = _pooled(head, *shape, ("max", reading), region, (None, None), by)
        return whole.values.masked_fill(whole.visible_share == 0, _hidden(reading))
    at, across = slice(rows.start, rows.stop), slice(columns.start, columns.stop)
    x_RC = head.layer.scores(at, across)[0]
    seen_RC = _mask(head, rows, columns) if _needs_mask(head, rows, columns) else None
    return _read(
        x_RC, head.lse_Q[at, None], seen_RC, None if norm_K is None else norm_K[across], reading
    )


def mask_tile(head: Head, queries: slice, keys: slice) -> Tensor:
    """Which pairs of a rectangle may attend: bool `[R, C]`, True where visible.

    Raises:
        InvalidCall: An empty rectangle, or a step other than 1.
    """
    return _mask(head, _region(queries, head.query_length), _region(keys, head.key_length))


def row(head: Head, query: int, *, reading: Reading = "weight") -> Tensor:
    """What one query reads: float32 `[K]`, as in `tile`.

    Raises:
        InvalidCall: No such query, an unknown reading, or no value norms.
    """
    at = _index(query, head.query_length, "query")
    norm_K, every = _value_norm(head, reading), range(head.key_length)
    row_K = head.k_KD.new_full((len(every),), _hidden(reading), dtype=torch.float32)
    # What no one sees is not read: a window costs its own keys, not the length.
    for segment in segments(head.layer, at, at, every, limit=len(every)):
        keys = slice(segment.start, segment.end)
        x_C = _scores_of_one(head.q_QD[at], head.k_KD[keys], head)
        x_C = _biased(x_C, head, range(at, at + 1), range(keys.start, keys.stop))
        hidden = segment.masked or head.visible_keys_K is not None
        seen_C = _mask(head, range(at, at + 1), range(keys.start, keys.stop))[0] if hidden else None
        norm_C = None if norm_K is None else norm_K[keys]
        row_K[keys] = _read(x_C, head.lse_Q[at], seen_C, norm_C, reading)
    return row_K


def column(head: Head, key: int, *, reading: Reading = "weight") -> Tensor:
    """Who reads one key: float32 `[Q]`, as in `tile`.

    Raises:
        InvalidCall: No such key, an unknown reading, or no value norms.
    """
    at = _index(key, head.key_length, "key")
    norm_K = _value_norm(head, reading)
    # A score is the same product read from either side: the key asks, and all queries answer.
    x_Q = _scores_of_one(head.k_KD[at], head.q_QD, head)
    x_Q = _biased(x_Q, head, range(head.query_length), range(at, at + 1))
    seen_Q = _mask(head, range(head.query_length), range(at, at + 1))[:, 0]
    return _read(x_Q, head.lse_Q, seen_Q, None if norm_K is None else norm_K[at], reading)


def pooled(
    head: Head,
    rows: int,
    columns: int,
    *,
    reduce: Reduce = "mean",
    queries: slice = EVERYTHING,
    keys: slice = EVERYTHING,
    reading: Reading = "weight",
    by: By | None = None,
    progress: Progress | None = None,
) -> Pooled:
    """A rectangle drawn with at most `rows` × `columns` cells, every pair read.

    The mean is over the visible pairs of a cell. Over a whole row of cells the sums of weights
    total the number of its queries that see a key, less what their sinks hold. NaN stands in a
    cell without a visible pair, whatever the reduction.

    Args:
        head: The head.
        rows: Cells down; clipped to the number of queries, where a cell is one query.
        columns: Cells across, likewise.
        reduce: "mean", "max" or "sum" of a cell's visible pairs.
        queries: Of the head's queries, by index; step 1.
        keys: Of the head's keys.
        reading: As in `tile`.
        by: Who computes, as in `tile`.
        progress: Called with the share done; it may raise to stop.

    Raises:
        InvalidCall: An empty rectangle, no cells, an unknown reading or reduction, or no value
            norms.
        UnsupportedCall: Triton was demanded and does not take the head.
    """
    return _pooled(head, rows, columns, (reduce, reading), (queries, keys), (None, progress), by)


def sampled(
    head: Head,
    rows: int,
    columns: int,
    *,
    queries_per_row: int,
    reduce: Reduce = "mean",
    queries: slice = EVERYTHING,
    keys: slice = EVERYTHING,
    reading: Reading = "weight",
    progress: Progress | None = None,
) -> Pooled:
    """As `pooled`, reading only evenly spaced queries of each row, exactly and over all their keys.

    For the first paint of a huge region: `queries_per_row` of each row's queries, all of them where
    a row holds no more. Means, maxima and shares are those of the queries read; a sum is scaled to
    the number of queries in its row. The other arguments are those of `pooled`.

    Raises:
        InvalidCall: As `pooled`, or fewer than one query a row.
    """
    if queries_per_row < 1:
        raise InvalidCall(f"queries_per_row must be at least 1, got {queries_per_row}.")
    effort = (queries_per_row, progress)
    return _pooled(head, rows, columns, (reduce, reading), (queries, keys), effort)


def pair_cost(head: Head, queries: slice = EVERYTHING, keys: slice = EVERYTHING) -> int:
    """How many pairs `pooled` would visit in a rectangle: an upper bound, from the spans alone."""
    rows, columns = _region(queries, head.query_length), _region(keys, head.key_length)
    step = max(256, -(-len(rows) // 512))
    cost = 0
    for start in range(rows.start, rows.stop, step):
        end = min(start + step, rows.stop)
        visited = segments(head.layer, start, end - 1, columns, limit=len(columns))
        cost += (end - start) * sum(segment.end - segment.start for segment in visited)
    return cost


def overview(  # noqa: PLR0913 -- a layer and how to draw it
    q_HQD: Tensor,
    k_GKD: Tensor,
    lse_HQ: Tensor,
    *,
    pattern: Pattern,
    query_offset: int,
    scale: float,
    softcap: float | None = None,
    visible_keys_K: Tensor | None = None,
    distance_bias_HR: Tensor | None = None,
    size: int = 48,
    reduce: Reduce = "max",
    queries_per_row: int | None = None,
    by: By | None = None,
    progress: Progress | None = None,
) -> Pooled:
    """Thumbnails of all heads of a layer in one pass.

    `values` is `[H, size, size]`, `visible_share` `[size, size]`.

    Args:
        q_HQD: Queries of the layer for one sequence.
        k_GKD: Keys, not repeated.
        lse_HQ: Natural log-sum-exp, sink included.
        pattern: Which pairs are visible, in absolute positions.
        query_offset: Absolute position of the first query.
        scale: Multiplies q·k.
        softcap: Bound of the scores, or None.
        visible_keys_K: bool, False where a key is padding.
        distance_bias_HR: `[H, Q + K − 1]`, see `kernels/distance_bias.py`, or None.
        size: Cells a side; clipped to the number of queries and of keys.
        reduce: "mean", "max" or "sum" of a cell's visible weights.
        queries_per_row: Read only so many queries a row, as `sampled` does; None reads all.
        by: Who computes, as in `tile`.
        progress: Called with the share done; it may raise to stop.

    Raises:
        InvalidCall: Shapes that contradict each other, no cells, or an unknown reduction.
        UnsupportedCall: Triton was demanded and does not take the layer.
    """
    layer = Layer(
        q_HQD=q_HQD,
        k_GKD=k_GKD,
        pattern=pattern,
        query_offset=query_offset,
        scale=scale,
        softcap=softcap,
        visible_keys_K=visible_keys_K,
        distance_bias_HR=distance_bias_HR,
    )
    asked = Asked(
        layer=layer,
        lse_HQ=lse_HQ,
        row_edges=edges(EVERYTHING, layer.query_length, size),
        column_edges=edges(EVERYTHING, layer.key_length, size),
        reduce=reduce,
    )
    return map_of(asked, by=by, queries_per_row=queries_per_row, progress=progress)


def edges(part: slice, length: int, cells: int) -> Tensor:
    """Edges of at most `cells` cells over a part of `length` positions: int64 `[cells + 1]`.

    Raises:
        InvalidCall: An empty part, a step other than 1, or no cell.
    """
    region = _region(part, length)
    if cells < 1:
        raise InvalidCall(f"a map needs at least one row and one column, got {cells}.")
    return bin_edges(region.start, region.stop, min(cells, len(region)))


def _pooled(
    head: Head,
    rows: int,
    columns: int,
    meaning: tuple[Reduce, Reading],
    region: tuple[slice, slice],
    effort: tuple[int | None, Progress | None],
    by: By | None = None,
) -> Pooled:
    (reduce, reading), (queries_per_row, progress) = meaning, effort
    norm_K = _value_norm(head, reading)
    asked = Asked(
        layer=head.layer,
        lse_HQ=head.lse_Q[None],
        row_edges=edges(region[0], head.query_length, rows),
        column_edges=edges(region[1], head.key_length, columns),
        reduce=reduce,
        reading=reading,
        value_norm_HK=None if norm_K is None else norm_K[None],
    )
    whole = map_of(asked, by=by, queries_per_row=queries_per_row, progress=progress)
    return replace(whole, values=whole.values[0])


def _region(part: slice, length: int) -> range:
    start, end, step = part.indices(length)
    if step != 1 or start >= end:
        raise InvalidCall(
            f"a region needs a start below its end and step 1, got {part.start}:{part.stop}"
            f":{part.step} of {length}."
        )
    return range(start, end)


def _index(index: int, length: int, what: str) -> int:
    if not 0 <= index < length:
        raise InvalidCall(f"there is no {what} {index}: the head has 0 to {length - 1}.")
    return index


def _value_norm(head: Head, reading: Reading) -> Tensor | None:
    if reading not in get_args(Reading):
        raise InvalidCall(
            f"reading must be one of {', '.join(get_args(Reading))}, got {reading!r}."
        )
    if reading != "value_weighted":
        return None
    if head.value_norm_K is None:
        raise InvalidCall(
            "a value-weighted map needs the norms of the values, and this head has none."
        )
    return head.value_norm_K


def _scores_of_one(one_D: Tensor, many_ND: Tensor, head: Head) -> Tensor:
    # In pieces that the cache holds, 16-bit keys are widened four times faster than all at once.
    wide = many_ND.dtype == accumulation_dtype(many_ND.dtype)
    pieces = [
        scores(one_D[None], piece_ND, scale=head.scale, softcap=head.softcap)[0]
        for piece_ND in ([many_ND] if wide else many_ND.split(LINE_PIECE))
    ]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def _biased(x: Tensor, head: Head, queries: range, keys: range) -> Tensor:
    """Scores of one query, or of one key, with the head's bias by distance."""
    if head.distance_bias_R is None:
        return x
    length = head.query_length
    line = distance_bias.of_part(head.distance_bias_R, queries, keys, query_length=length)
    # Later queries lie farther from their key on the other side.
    return x + (line if len(queries) == 1 else line.flip(0))


def _read(
    x: Tensor, lse: Tensor, seen: Tensor | None, norm: Tensor | None, reading: Reading
) -> Tensor:
    """Scores made into a reading, in place; `lse`, `seen` and `norm` broadcast with them."""
    if reading != "score":
        exponentials(x.sub_(lse))
    if seen is not None:
        x.masked_fill_(~seen, _hidden(reading))
    if norm is not None:
        x *= norm
    return x.float()


def _hidden(reading: Reading) -> float:
    return torch.nan if reading == "score" else 0.0


def _needs_mask(head: Head, rows: range, columns: range) -> bool:
    if head.visible_keys_K is not None:
        return True
    visited = segments(head.layer, rows.start, rows.stop - 1, columns, limit=len(columns))
    shown = sum(segment.end - segment.start for segment in visited if not segment.masked)
    return shown < len(columns)


def _mask(head: Head, rows: range, columns: range) -> Tensor:
    queries = torch.arange(rows.start, rows.stop, device=head.q_QD.device)
    return head.layer.seen(queries, columns)
