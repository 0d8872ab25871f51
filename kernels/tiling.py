"""How the scores of a call are cut into tiles: what is worked on together, and the keys that it visits.

B batch, H query heads, G kv heads, Q queries, K keys.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, product, starmap
from typing import NamedTuple

import torch

from attnscope.kernels.call import AttentionCall
from attnscope.kernels.patterns.band import band
from attnscope.kernels.patterns.pattern import Pattern, Spans

MOST_ROWS, FEWEST_ROWS = 256, 128
"""Rows of a tile on a processor: more of them visit keys that few see, fewer make flat products."""
ROWS_ALIKE = 64
"""Rows of one of many blocks that are worked on together."""
MOST_VISITED = 1.25
"""Keys that a block of queries visits, over those that one of them does, at most where rows allow."""
CACHED_SCORES = 2**20 + 2**17
"""Scores held at once on a processor, 4.5 MiB of them: a power of 2 of blocks of 64 queries fits where
the window is one from 512 on, so that cores share them evenly."""
VECTOR = 16
"""Keys of a tile are a multiple of it where they are many: rows of scores begin where a vector of
float32, and a line of the cache, does."""

Tile = tuple[range, tuple[range, ...]]
"""Keys in a row, and those among them that some query of the block does not see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """How the scores are cut into tiles.

    Attributes:
        queries: Queries of a tile, at most.
        keys: Keys of a tile, at most.
        scores: Scores of tiles that are worked on together, over heads and sequences, or over the
            blocks of a band: as many as fit, and always at least one block of one kv head.
    """

    queries: int
    keys: int
    scores: int


class Region(NamedTuple):
    """What is worked on together: one block of queries of some heads, or some blocks of one kv head.

    Attributes:
        sequences: Of the batch.
        kv_heads: With all query heads that share them.
        queries: Of the call, whole blocks where there are several.
        blocks: Into how many equal blocks the queries are cut.
    """

    sequences: slice
    kv_heads: slice
    queries: slice
    blocks: int = 1


def default_block(call: AttentionCall, device: torch.device) -> Block:
    """The block that measured fastest: about a cache's worth of scores, more on an accelerator.

    Where a pattern shows each query few keys, a processor takes fewer queries at a time: together they
    visit fewer keys that most of them do not see. It takes fewest where many blocks are alike.
    """
    if device.type != "cpu":
        return Block(queries=max(1024 // call.group_size, 64), keys=2048, scores=2**26)
    small = Block(
        queries=max(ROWS_ALIKE // call.group_size, VECTOR),
        keys=CACHED_SCORES // ROWS_ALIKE,
        scores=CACHED_SCORES,
    )
    if alike(call, small):
        return small
    return Block(queries=max(_rows(call) // call.group_size, 64), keys=1024, scores=CACHED_SCORES)


def _rows(call: AttentionCall) -> int:
    """As many as see little more together than one alone does."""
    rows, middle = MOST_ROWS, call.query_offset + call.query_length // 2

    def visited(queries: int) -> int:
        spans = call.pattern.key_spans(middle, middle + queries, call.key_length)
        return sum(last - first for first, last in spans)

    alone = visited(1) if call.query_length > FEWEST_ROWS else call.key_length
    while rows > FEWEST_ROWS and visited(rows) > MOST_VISITED * alone:
        rows //= 2
    return rows


def regions(call: AttentionCall, block: Block) -> Iterator[Region]:
    """The regions of a call: every row is in one of them."""
    inner = alike(call, block)
    sequences, kv_heads = _heads(call, block)
    queries, runs = block.queries, []
    if inner:
        fit = fitting(call, block)
        runs = _slices(inner, fit * block.queries)
        # The few others are cut into larger blocks, which hold no more than a run of those alike.
        most = min(fit, len(inner) // block.queries) // (sequences * kv_heads)
        queries *= min(most, 4)
    outer = (
        _slices(range(inner.start), queries),
        _slices(range(inner.stop, call.query_length), queries),
    )
    yield from starmap(
        Region,
        product(
            _slices(range(call.batch), sequences),
            _slices(range(call.kv_heads), kv_heads),
            chain(*outer),
        ),
    )
    for sequence, kv_head, run in product(range(call.batch), range(call.kv_heads), runs):
        yield Region(
            slice(sequence, sequence + 1),
            slice(kv_head, kv_head + 1),
            run,
            blocks=(run.stop - run.start) // block.queries,
        )


def fullest(call: AttentionCall, block: Block) -> Region:
    """The region that holds the most.

    Without blocks that are alike it is the last whole one: under a causal rule none sees more keys.
    """
    inner = alike(call, block)
    if inner:
        blocks = min(fitting(call, block), len(inner) // block.queries)
        last = slice(inner.stop - blocks * block.queries, inner.stop)
        return Region(slice(1), slice(1), last, blocks)
    sequences, kv_heads = _heads(call, block)
    queries = min(block.queries, call.query_length)
    stop = call.query_length // queries * queries
    return Region(slice(sequences), slice(kv_heads), slice(stop - queries, stop))


def fitting(call: AttentionCall, block: Block) -> int:
    """How many blocks of queries, each of one kv head, are worked on together, at most."""
    rows = call.group_size * min(block.queries, call.query_length)
    keys = min(block.keys, call.key_length)
    if band(call.pattern) is not None:
        keys = min(len(band_keys(call, block.queries)), keys)
    return max(block.scores // (rows * keys), 1)


def _heads(call: AttentionCall, block: Block) -> tuple[int, int]:
    """Sequences, and kv heads of each, of which one block is worked on together."""
    fit = fitting(call, block)
    kv_heads = min(fit, call.kv_heads)
    return (min(fit // kv_heads, call.batch) if kv_heads == call.kv_heads else 1), kv_heads


def alike(call: AttentionCall, block: Block) -> range:
    """The queries of a band whose blocks each see all that it shows: one shape and one mask serve all.

    Returns:
        A multiple of a block's queries. Empty where fewer blocks than heads would be worked on
        together, or no two.
    """
    none = range(call.query_length, call.query_length)
    if call.query_length < 2 * block.queries or band(call.pattern) is None:
        return none
    seen = band_keys(call, block.queries)
    start = _up(max(-seen.start - call.query_offset, 0), block.queries)
    stop = min(call.query_length, call.key_length - call.query_offset + block.queries - seen.stop)
    blocks = (stop - start) // block.queries
    together = fitting(call, block)
    if min(blocks, together) < 2 or blocks < min(together, call.batch * call.kv_heads):
        return none
    return range(start, start + blocks * block.queries)


def band_keys(call: AttentionCall, queries: int) -> range:
    """The keys that a block of a band visits, as positions from the block's first query on."""
    seen = band(call.pattern)
    assert seen is not None
    stop = queries + seen.after
    return range(stop - _up(seen.before + stop, VECTOR), stop)


def key_tiles(
    pattern: Pattern, queries: range, key_length: int, keys_at_a_time: int
) -> Iterator[Tile]:
    """The keys that a block of queries must visit, and where among them the rule divides.

    Args:
        pattern: The rule.
        queries: Absolute positions of the block.
        key_length: K.
        keys_at_a_time: Longest tile.

    Yields:
        `(keys, divided)`: tiles are disjoint and ascending; each query sees all keys of the tile
        outside `divided`, so the rule need be applied only there.
    """
    whole = pattern.full_key_spans(queries.start, queries.stop, key_length)
    visited = 0
    for first, last in pattern.key_spans(queries.start, queries.stop, key_length):
        if last - first > 16 * VECTOR:
            first = max(last - _up(last - first, VECTOR), visited)
        visited = last
        for start in range(first, last, keys_at_a_time):
            keys = range(start, min(start + keys_at_a_time, last))
            yield keys, _outside(keys, whole)


def _outside(keys: range, spans: Spans) -> tuple[range, ...]:
    parts, at = [], keys.start
    for first, last in spans:
        if at < min(first, keys.stop):
            parts.append(range(at, min(first, keys.stop)))
        at = max(at, last)
    return (*parts, range(at, keys.stop)) if at < keys.stop else tuple(parts)


def _slices(part: range, step: int) -> list[slice]:
    starts = range(part.start, part.stop, step)
    return [slice(start, min(start + step, part.stop)) for start in starts]


def _up(number: int, step: int) -> int:
    """The next multiple of the step."""
    return -(-number // step) * step
