"""A band in flash-attention's words, for every small number of queries, keys and places."""

from itertools import product

import pytest

from attnscope.kernels.patterns.band import EVERYTHING, Band
from attnscope.kernels.patterns.flash_window import FlashWindow, to_flash_window
from tests.kernels.backends.flash_fakes import limited_2, limited_3, limited_4, seen_keys

REACHES = (0, 1, 2, 5, EVERYTHING)


@pytest.mark.parametrize("after", REACHES)
@pytest.mark.parametrize("before", REACHES)
def test_every_band_is_seen_as_it_is_by_every_generation(before: int, after: int) -> None:
    taken = 0
    for queries, keys, offset in product(range(1, 5), range(1, 8), range(7)):
        found = to_flash_window(
            Band(before=before, after=after),
            query_offset=offset,
            query_length=queries,
            key_length=keys,
        )
        meant = [
            [key for key in range(keys) if place - before <= key <= place + after]
            for place in range(offset, offset + queries)
        ]
        if found is None:
            assert offset + queries > keys
            assert any(len(seen) < keys for seen in meant)
            continue
        taken += 1
        for said in _said(found, queries):
            assert said == meant
    assert taken > 50


def _said(found: FlashWindow, queries: int) -> list[list[list[int]]]:
    """What each query sees of the keys that are given, as each generation has it."""
    keys, causal = len(found.keys), found.right == 0
    sides = [-1 if side is None else side for side in (found.left, found.right)]
    windows = (
        limited_2((sides[0], sides[1]), causal, queries, keys),
        limited_3((sides[0], sides[1]), causal, queries, keys),
        limited_4((found.left, found.right), causal, queries, keys),
    )
    return [
        [
            [found.keys[key] for key in seen_keys(window, query + keys - queries, keys)]
            for query in range(queries)
        ]
        for window in windows
    ]


def test_a_window_of_one_key_is_none_before_and_none_after() -> None:
    found = to_flash_window(Band(before=0, after=0), query_offset=0, query_length=9, key_length=9)
    assert found == FlashWindow(keys=range(9), left=0, right=0)


def test_queries_past_the_keys_that_see_all_of_them_are_taken_anywhere() -> None:
    band = Band(before=EVERYTHING, after=EVERYTHING)
    found = to_flash_window(band, query_offset=60, query_length=7, key_length=4)
    assert found == FlashWindow(keys=range(4), left=None, right=None)
