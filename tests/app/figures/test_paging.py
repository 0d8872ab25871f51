"""The figures of the paged cache show the pages, slots and bytes they were given."""

import numpy as np
import pytest

from attnscope.app.figures.paging import (
    STATE_COLOURS,
    STATE_WORDS,
    block_table,
    block_table_words,
    parts_over_time,
    pool,
    schemes_over_time,
    schemes_words,
)
from attnscope.app.figures.theme import DARK, LIGHT
from attnscope.profiling.paging import STATES, requests
from attnscope.profiling.serving import serve

TABLE = np.array([[7, 2, 5], [0, -1, -1]])
LENGTHS = np.array([9, 1])


@pytest.mark.parametrize("look", [LIGHT, DARK])
def test_a_cell_of_the_block_table_is_as_full_as_its_page(look):
    figure = block_table([3, 8], TABLE, LENGTHS, page=4, look=look)
    np.testing.assert_array_equal(
        np.array(figure.data[0].z, float), [[1, 1, 0.25], [0.25, np.nan, np.nan]]
    )
    assert list(figure.data[1].text) == ["7", "2", "5", "0"]
    assert figure.layout.yaxis.ticktext == ("3", "8")
    assert block_table_words([3, 8], TABLE, LENGTHS) == (
        "request 3: 9 tokens in pages 7, 2, 5; request 8: 1 tokens in pages 0"
    )
    empty = np.zeros((0, 0), int)
    assert block_table_words([], empty, LENGTHS[:0]) == "No sequence is running."
    assert block_table([], empty, LENGTHS[:0], page=4, look=look).data


def test_the_pool_shows_every_slot_once_and_says_whose_it_is():
    timeline = serve(requests(6, seed=1, gap=1), "longest", pool=1200)
    owner, state = timeline.slots(3)
    figure = pool(owner, state, STATES, width=64, look=LIGHT)
    drawn = np.array(figure.data[0].z, float)
    assert drawn.shape == (19, 64)
    np.testing.assert_array_equal(drawn.ravel()[:1200], state)
    assert np.isnan(drawn.ravel()[1200:]).all()
    words = np.array(figure.data[0].text).ravel()
    for slot in (0, int((owner >= 0).sum()) - 1, 1199):
        name = STATES[state[slot]]
        said = "free" if name == "free" else f"request {owner[slot]}: {STATE_WORDS[name]}"
        assert words[slot] == said
    assert [trace.name for trace in figure.data[1:]] == [
        STATE_WORDS[name] for name in STATES if name in STATE_COLOURS
    ]


def test_areas_and_lines_are_the_bytes_in_the_pool_s_unit():
    parts = {name: np.array([2**20, 3 * 2**20]) for name in STATE_COLOURS}
    figure = parts_over_time(parts, pool_bytes=2**24, look=DARK)
    assert [list(area.y) for area in figure.data] == [[1, 3]] * 4
    assert figure.layout.yaxis.title.text == "MiB"
    held, written = {"paged": np.array([4096, 8192])}, {"paged": np.array([2048, 2048])}
    figure = schemes_over_time(held, written, pool_bytes=10_240, look=DARK)
    assert [(line.name, list(line.y)) for line in figure.data] == [
        ("paged: held", [4, 8]),
        ("paged: written", [2, 2]),
    ]
    words = schemes_words(held, written, pool_bytes=10_240).replace("\u202f", " ")
    assert words == "paged: 2 steps, on the mean 6.00 KiB held and 2.00 KiB written of 10.0 KiB"
