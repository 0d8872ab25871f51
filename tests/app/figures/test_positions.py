"""The figures of positions show the vectors, lines and means they were given."""

import numpy as np
import pytest

from attnscope.app.figures.positions import (
    LINE_COLOURS,
    heads_over_distance,
    over_distance,
    over_distance_words,
    position_table,
)
from attnscope.app.figures.theme import DARK, LIGHT


@pytest.mark.parametrize("look", [LIGHT, DARK])
def test_a_table_is_drawn_as_it_is_about_zero(look):
    table = np.array([[0.5, -2.0], [1.0, 0.0]])
    figure = position_table(table, look=look)
    drawn = figure.data[0]
    np.testing.assert_array_equal(drawn.z, table)
    assert (drawn.zmin, drawn.zmax) == (-2.0, 2.0)
    assert figure.layout.paper_bgcolor == look.ground


def test_of_a_long_table_evenly_spaced_rows_are_drawn():
    table = np.arange(5000 * 4, dtype=float).reshape(5000, 4)
    drawn = position_table(table, look=LIGHT).data[0]
    assert len(drawn.y) == 512
    assert (drawn.y[0], drawn.y[-1]) == (0, 4999)
    np.testing.assert_array_equal(drawn.z, table[np.asarray(drawn.y)])


def test_every_curve_has_a_line_of_its_own_look():
    curves = {f"head {at}": np.array([1.0, at, np.nan]) for at in range(10)}
    figure = over_distance(curves, [0, 1, 2], up="score", look=DARK, logarithmic=(True, False))
    assert [line.name for line in figure.data] == list(curves)
    assert len({(line.line.color, line.line.dash) for line in figure.data}) == 10
    assert figure.data[8].line.color == LINE_COLOURS[0]
    np.testing.assert_array_equal(figure.data[3].y, [1, 3, np.nan])
    assert (figure.layout.xaxis.type, figure.layout.yaxis.type) == ("log", "linear")
    words = over_distance_words({"rope": np.array([1.0, 0.25])}, [0, 64])
    assert words == "rope: 1 at 0, 0.25 at 64"


def test_heads_by_distance_are_means_of_neighbours_where_there_are_many():
    means = np.tile(np.arange(1024.0), (2, 1))
    means[1, :2] = np.nan
    figure = heads_over_distance(means, np.arange(1024), what="score", look=LIGHT)
    drawn = np.array(figure.data[0].z)
    assert drawn.shape == (2, 512)
    np.testing.assert_array_equal(drawn[0], np.arange(512) * 2 + 0.5)
    assert np.isnan(drawn[1, 0])
    assert figure.data[0].x[1] == 2.5
    few = heads_over_distance(means[:, :5], np.arange(5), what="score", look=LIGHT)
    np.testing.assert_array_equal(few.data[0].z, means[:, :5])
