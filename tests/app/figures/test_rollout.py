"""Charts of rollout and flow: what is unreached stays empty, and files are framed."""

import numpy as np
import pytest

from attnscope.app.figures.rollout import (
    Cells,
    cells_frame,
    flow_figure,
    rollout_map_figure,
    trail_figure,
)
from attnscope.app.figures.theme import DARK, LIGHT

VALUES = np.array([[0.0, 0.0, 1.0], [0.25, 0.25, 0.5]])
TRAIL = Cells(
    values=VALUES, edges=np.array([0, 2, 4, 5]), rows=["the token", "below layer 0"], tokens="abcde"
)


def test_the_trail_stands_by_layer_and_leaves_out_what_no_path_reaches() -> None:
    figure = trail_figure(TRAIL, look=LIGHT)
    drawn = figure.data[0]
    np.testing.assert_array_equal(np.isnan(drawn.z), VALUES == 0)
    np.testing.assert_allclose(drawn.z[1], np.log10([0.25, 0.25, 0.5]))
    np.testing.assert_array_equal(drawn.x, [0.5, 2.5, 4.0])
    assert list(figure.layout.yaxis.ticktext) == ["the token", "below layer 0"]
    assert figure.layout.plot_bgcolor == LIGHT.masked


def test_the_table_names_the_tokens_of_each_cell() -> None:
    frame = cells_frame(TRAIL)
    assert len(frame) == 4
    first = frame.iloc[1].to_dict()
    assert first == {"row": "below layer 0", "token_first": 0, "token_last": 1, "share": 0.25}


@pytest.mark.parametrize("look", [LIGHT, DARK])
def test_a_map_for_a_file_has_its_scale_and_its_words(look) -> None:
    cells = Cells(
        values=np.tril(np.ones((2, 2))),
        edges=np.array([0, 1, 2]),
        rows=np.array([0, 1, 2]),
        tokens="ab",
    )
    assert not rollout_map_figure(cells, look=look).data[0].showscale
    filed = rollout_map_figure(cells, look=look, title="<b>x</b>", note="n")
    assert filed.data[0].showscale
    assert filed.layout.title.text == "&lt;b&gt;x&lt;/b&gt;"
    assert filed.layout.annotations[0].text == "n"


def test_flow_stands_beside_rollout_at_the_tokens_positions() -> None:
    figure = flow_figure([0.5, 0.2], [0.1, 0.05], ["<i>", " b"], 7, look=LIGHT)
    rollout, flow = figure.data
    assert (list(rollout.y), list(flow.y)) == ([0.1, 0.05], [0.5, 0.2])
    assert list(flow.x) == [7, 8]
    assert figure.layout.xaxis.ticktext[0] == "&lt;i&gt;"
