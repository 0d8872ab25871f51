"""Every pair that a pattern shows is visited once, by blocks that are cut as they measured fastest."""

from typing import Any

import pytest
import torch

from attnscope.kernels.call import AttentionCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.tiling import (
    VECTOR,
    Block,
    alike,
    band_keys,
    default_block,
    fullest,
    key_tiles,
    regions,
)

CPU = torch.device("cpu")


def call(
    key: str = "sliding_window",
    *,
    batch: int = 1,
    heads: tuple[int, int] = (4, 2),
    queries: int = 4096,
    keys: int = 4096,
    offset: int | None = None,
    **parameters: Any,
) -> AttentionCall:
    q, k = (
        torch.empty(batch, count, length, 8, device="meta")
        for count, length in zip(heads, (queries, keys), strict=True)
    )
    return AttentionCall.of(q, k, k, pattern=pattern(key, **parameters), query_offset=offset)


@pytest.mark.parametrize(
    ("chosen", "queries", "expected"),
    [
        ("full", range(8), [(range(16), ()), (range(16, 20), ())]),
        ("causal", range(8, 12), [(range(12), (range(9, 12),))]),
        ("causal", range(16, 18), [(range(16), ()), (range(16, 18), (range(17, 18),))]),
        ("causal", range(-4, -1), []),
        ("window 4", range(8, 12), [(range(5, 12), (range(5, 8), range(9, 12)))]),
        ("window 1", range(8, 10), [(range(8, 10), (range(8, 10),))]),
        (
            "sinks 2, window 4",
            range(8, 12),
            [(range(2), ()), (range(5, 12), (range(5, 8), range(9, 12)))],
        ),
    ],
)
def test_tiles_cover_what_is_seen_and_know_where_the_rule_divides(
    chosen: str, queries: range, expected
) -> None:
    patterns = {
        "full": pattern("full"),
        "causal": pattern("causal"),
        "window 4": pattern("sliding_window", window=4),
        "window 1": pattern("sliding_window", window=1),
        "sinks 2, window 4": pattern("sinks_window", window=4, sinks=2),
    }
    assert list(key_tiles(patterns[chosen], queries, 20, 16)) == expected


def test_a_long_run_of_keys_is_widened_to_whole_vectors_but_never_into_the_run_before() -> None:
    window = pattern("sliding_window", window=500)
    assert [keys for keys, _ in key_tiles(window, range(600, 610), 2000, 2000)] == [range(98, 610)]
    sinks = pattern("sinks_window", window=500, sinks=100)
    tiles = [keys for keys, _ in key_tiles(sinks, range(600, 610), 2000, 2000)]
    assert tiles == [range(100), range(100, 610)]


@pytest.mark.parametrize(
    ("key", "parameters", "queries", "keys"),
    [
        ("causal", {}, 256, 1024),
        ("full", {}, 256, 1024),
        # Blocks alike, each of which sees its keys in one tile.
        ("sliding_window", {"window": 64}, 32, 18_432),
        ("sliding_window", {"window": 1024}, 32, 18_432),
        ("local", {"window": 1024}, 32, 18_432),
        ("sliding_window", {"window": 3000}, 32, 18_432),
        # Too few blocks are alike.
        ("sliding_window", {"window": 4090}, 256, 1024),
        # Nor are those of other rules known to be.
        ("sinks_window", {"window": 512, "sinks": 4, "causal": True}, 128, 1024),
        ("sinks_window", {"window": 1024, "sinks": 4, "causal": True}, 256, 1024),
        ("strided", {"stride": 128}, 256, 1024),
    ],
)
def test_on_a_processor_fewer_queries_are_taken_where_each_sees_few_keys(
    key: str, parameters: dict, queries: int, keys: int
) -> None:
    found = default_block(call(key, **parameters), CPU)
    assert (found.queries * (2 if queries > 32 else 1), found.keys) == (queries, keys)
    assert default_block(call(key, **parameters), torch.device("cuda")).queries == 512


CALLS = [
    call("causal", queries=70, keys=70),
    call("causal", batch=3, heads=(6, 3), queries=33, keys=90),
    call(window=8, queries=70, keys=70),
    call(window=8, batch=2, queries=61, keys=90),
    call(window=8, queries=61, keys=90, offset=0),
    # Queries past the last key.
    call(window=8, queries=61, keys=40, offset=11),
    call("local", window=9, queries=70, keys=70),
    call("local", window=9, batch=2, queries=33, keys=90, offset=20),
    call(window=3, heads=(2, 2), queries=1, keys=90),
]


@pytest.mark.parametrize("made", CALLS)
@pytest.mark.parametrize("scores", [1, 512, 2048])
def test_each_row_is_in_one_region_and_none_holds_more_than_the_fullest(
    made: AttentionCall, scores: int
) -> None:
    block = Block(queries=8, keys=32, scores=scores)
    seen = torch.zeros(made.batch, made.kv_heads, made.query_length, dtype=torch.int)
    sizes = []
    for sequences, kv_heads, queries, blocks in regions(made, block):
        seen[sequences, kv_heads, queries] += 1
        sizes.append(seen[sequences, kv_heads, queries].numel())
        assert blocks == 1 or (queries.stop - queries.start) == blocks * block.queries
    assert (seen == 1).all()
    most = fullest(made, block)
    assert seen[most.sequences, most.kv_heads, most.queries].numel() == max(sizes)


@pytest.mark.parametrize("made", CALLS)
def test_blocks_alike_see_the_same_keys_from_where_they_stand(made: AttentionCall) -> None:
    block = Block(queries=8, keys=64, scores=2**13)
    inner = alike(made, block)
    for start in range(inner.start, inner.stop, block.queries):
        first = made.query_offset + start
        seen = made.pattern.visible(
            torch.arange(first, first + block.queries)[:, None], torch.arange(-99, 199)
        )
        found = seen.any(0).nonzero()[[0, -1]].flatten() - 99 - first
        keys = band_keys(made, block.queries)
        assert keys.start <= found[0]
        assert found[1] == keys.stop - 1
        assert len(keys) % VECTOR == 0
        assert first + keys.start >= 0
        assert first + keys.stop <= made.key_length


def test_there_are_blocks_alike_where_a_window_bites() -> None:
    block = Block(queries=8, keys=64, scores=2**13)
    assert alike(call(window=9, queries=70, keys=70), block) == range(8, 64)
    assert alike(call("local", window=8, queries=70, keys=70), block) == range(8, 64)
    assert not alike(call("causal", queries=70, keys=70), block)
    # Four heads fill a region better than three blocks of one of them do.
    assert not alike(call(window=9, heads=(4, 4), queries=33, keys=33), block)
