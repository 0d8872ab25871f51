"""The map of cross-attention shows the weights and names it was given, and user text stays inert."""

import numpy as np
import pytest

from attnscope.app.figures.cross_attention import cross_map, cross_map_words
from attnscope.app.figures.theme import DARK, LIGHT

WEIGHTS = np.array([[0.9, 0.1, 0.0], [0.25, 0.5, 0.25]])


@pytest.mark.parametrize("look", [LIGHT, DARK])
def test_rows_are_what_was_said_and_columns_the_source(look):
    figure = cross_map(WEIGHTS, said=["a", "<b>"], source=["x", " ", "z"], look=look)
    np.testing.assert_array_equal(figure.data[0].z, WEIGHTS)
    assert figure.layout.yaxis.ticktext == ("a", "&lt;b&gt;")
    assert figure.layout.xaxis.ticktext == ("x", "␣", "z")
    assert list(figure.data[1].text) == ["0.90", "0.10", "0.00", "0.25", "0.50", "0.25"]
    assert tuple(figure.data[0].customdata[1][0]) == ("&lt;b&gt;", "x")
    assert figure.layout.paper_bgcolor == look.ground


def test_a_large_map_has_no_numbers_in_its_cells():
    names = [str(at) for at in range(13)]
    drawn = cross_map(np.eye(13), said=names, source=names, look=LIGHT).to_dict()
    assert len(drawn["data"]) == 1


def test_the_words_name_what_each_token_read_most():
    words = cross_map_words(WEIGHTS, said=["a", "b"], source=["x", "y", "z"])
    assert words == "a read x with weight 0.90; b read y with weight 0.50"
