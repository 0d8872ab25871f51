"""The grid as it is drawn: which square stands where, in what colour, and what it says."""

import pytest

from attnscope.app.figures.needle import NeedleGrid, colour_of, needle_frame, needle_grid, scale_of
from attnscope.app.figures.theme import LIGHT
from attnscope.app.jobs.needle_answers import cells_of
from tests.app.needles import TRIALS

CELLS = cells_of(TRIALS[:-1])[:3]  # the last cell has not run


def drawn(score: str, width: int | None = 400):
    grid = NeedleGrid(
        cells=CELLS,
        lengths=(64, 128),
        depths=(0, 50),
        score=score,
        scale=scale_of(CELLS, score),
        chosen=(128, 0),
    )
    return needle_grid(grid, title="A <b>title</b>", note="A note", look=LIGHT, width=width)


def test_a_square_stands_where_its_length_and_depth_are():
    missing, squares = drawn("exact").data
    places = [
        (x, y, each[0], each[1])
        for x, y, each in zip(squares.x, squares.y, squares.customdata, strict=True)
    ]
    assert places == [(0, 0, 64, 0), (0, 1, 64, 50), (1, 0, 128, 0)]
    assert (list(missing.x), list(missing.y)) == ([1], [1])
    assert list(squares.text) == ["2/2", "2/2", "0/2"]
    assert list(squares.marker.line.width) == [0, 0, 3]


@pytest.mark.parametrize(
    ("score", "scale", "texts"),
    [
        ("log_probability", (-6.0, 0.0), ["-0.5", "-0.5", "-6.0"]),
        ("rank", (-1.602, 0.0), ["1", "1", "40"]),
    ],
)
def test_more_is_better_on_a_scale_from_the_worst_to_the_best_that_can_be(score, scale, texts):
    squares = drawn(score, None).data[1]
    assert (squares.marker.cmin, squares.marker.cmax) == pytest.approx(scale, abs=1e-3)
    assert list(squares.text) == texts
    assert colour_of(CELLS[0], score) > colour_of(CELLS[2], score)


def test_the_table_has_a_row_a_cell():
    frame = needle_frame(CELLS)
    assert frame["exact"].tolist() == [2, 2, 0]
    assert frame["depth"].tolist() == [0, 50, 0]
    assert frame["rank"].tolist() == [1, 1, 40]
