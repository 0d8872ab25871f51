"""The figures of grouped-query attention show what they were given."""

import numpy as np
import pytest

from attnscope.app.figures.groups import (
    GROUP_COLOURS,
    disagreement,
    disagreement_words,
    group_layout,
    group_layout_words,
    uptraining,
)
from attnscope.app.figures.theme import DARK, LIGHT


def test_every_query_head_is_joined_to_the_kv_head_it_reads():
    members = [(0, 1, 2), (3, 4, 5)]
    figure = group_layout(members, look=DARK)
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    for group, line in zip(members, lines, strict=True):
        ends = list(zip(line.x[::3], line.x[1::3], strict=True))
        assert ends == [(head, sum(group) / 3) for head in group]
    words = [text for trace in figure.data for text in trace.hovertext or ()]
    assert "query head 4 reads kv head 1" in words
    assert figure.layout.paper_bgcolor == DARK.ground
    assert group_layout_words(members) == (
        "kv head 0 is read by query heads 0, 1, 2; kv head 1 is read by query heads 3, 4, 5"
    )


def test_many_heads_are_drawn_small_and_without_numbers():
    figure = group_layout([tuple(range(at, at + 8)) for at in range(0, 64, 8)], look=LIGHT)
    assert all(trace.text is None for trace in figure.data)
    assert len({trace.line.color for trace in figure.data[::2]}) == len(GROUP_COLOURS)


@pytest.mark.parametrize("look", [LIGHT, DARK])
def test_blocks_stand_along_the_diagonal_and_nothing_beside_them(look):
    apart = np.array([[[0, 0.25], [0.25, 0]], [[0, 0.75], [0.75, 0]]])
    figure = disagreement(apart, measure="total variation", highest=1.0, look=look)
    sheet = np.array(figure.data[0].z, dtype=float)
    np.testing.assert_array_equal(sheet[:2, :2], apart[0])
    np.testing.assert_array_equal(sheet[2:, 2:], apart[1])
    assert np.isnan(sheet[:2, 2:]).all()
    assert list(figure.data[1].text) == [
        "0.00",
        "0.25",
        "0.25",
        "0.00",
        "0.00",
        "0.75",
        "0.75",
        "0.00",
    ]
    assert disagreement_words(apart, measure="total variation") == (
        "group 0: mean total variation 0.250, largest 0.250; "
        "group 1: mean total variation 0.750, largest 0.750"
    )
    assert "no pairs" in disagreement_words(np.zeros((4, 1, 1)), measure="total variation")


def test_the_held_out_losses_are_named_with_their_numbers():
    figure = uptraining([(1, 3.0), (2, 2.5)], {"checkpoint": 2.0, "<b>pooled": 3.25}, look=LIGHT)
    assert list(figure.data[0].y) == [3.0, 2.5]
    assert [trace.name for trace in figure.data[1:]] == [
        "checkpoint: 2.000",
        "&lt;b&gt;pooled: 3.250",
    ]
    assert list(figure.data[2].x) == [0, 2]
