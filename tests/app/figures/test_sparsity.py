"""Masks, grids of heads and next tokens, read as they are drawn."""

import numpy as np
import pytest

from attnscope.app.figures.approximation_errors import (
    ErrorCurve,
    error_curves,
    error_curves_frame,
    error_curves_words,
)
from attnscope.app.figures.heads_grid import Heads, heads_frame, heads_grid
from attnscope.app.figures.mask import (
    Mask,
    colours,
    kept_figure,
    kept_frame,
    mask_figure,
    mask_frame,
)
from attnscope.app.figures.next_tokens import next_tokens, next_tokens_frame
from attnscope.app.figures.theme import theme

LOOK = theme("light")
KINDS = np.array([[2, 0, 0], [1, 2, 0], [0, 1, 2]], np.uint8)
MASK = Mask(kinds=KINDS, cell=4, query_start=8, key_start=0)
VALUES = np.array([[0.5, 0.25, 0.75], [0.125, 0.0, np.nan]])
WORDS = {"title": "<b>a title</b>", "note": "a note", "look": LOOK}


@pytest.mark.parametrize("side", [None, 224])
@pytest.mark.parametrize("name", ["light", "dark"])
def test_a_cell_is_drawn_where_its_pairs_are(name: str, side: int | None) -> None:
    look = theme(name)
    figure = mask_figure(MASK, **{**WORDS, "look": look}, side=side)
    (drawn,) = figure.data
    assert drawn.z.tolist() == KINDS.tolist()
    assert (drawn.x0, drawn.dx, drawn.y0, drawn.dy) == (1.5, 4, 9.5, 4)
    assert list(figure.layout.xaxis.range) == [-0.5, 11.5]
    assert list(figure.layout.yaxis.range) == [19.5, 7.5]
    assert (figure.layout.title.text is None) == (side is not None)
    for kind, colour in enumerate(colours(look)):
        place = next(at for at, _ in drawn.colorscale if at >= kind / 2)
        assert colour in [each for at, each in drawn.colorscale if at == place]
    assert len(set(colours(look))) == 3


def test_a_title_is_text() -> None:
    assert "&lt;b&gt;" in mask_figure(MASK, **WORDS).layout.title.text


def test_the_visible_cells_are_a_table() -> None:
    frame = mask_frame(MASK)
    assert len(frame) == np.count_nonzero(KINDS)
    assert frame.iloc[1].tolist() == [12, 15, 0, 3, "some pairs"]


def test_a_heads_own_mask_is_drawn_with_nothing_where_nothing_is_visible() -> None:
    shares = np.array([[0.5, np.nan], [0.0, 1.0]], np.float32)
    figure = kept_figure(shares, 10, **WORDS, side=200)
    (drawn,) = figure.data
    assert np.array_equal(drawn.z, shares, equal_nan=True)
    assert (drawn.x0, drawn.dx) == (2, 5)
    assert list(figure.layout.xaxis.range) == [-0.5, 9.5]
    assert kept_frame(shares, 10).to_numpy().tolist() == [[0, 0, 0.5], [5, 5, 1.0]]


def test_every_head_has_its_square_and_the_chosen_one_a_frame() -> None:
    heads = Heads(values=VALUES, layers=[0, 2], name="mass kept", chosen=(2, 0))
    figure = heads_grid(heads, **WORDS, width=268)
    (drawn,) = figure.data
    squares = list(zip(drawn.y, drawn.x, drawn.marker.color, strict=True))
    assert squares == [(0, 0, 0.5), (0, 1, 0.25), (0, 2, 0.75), (1, 0, 0.125), (1, 1, 0.0)]
    assert [list(each) for each in drawn.customdata] == [[0, 0], [0, 1], [0, 2], [2, 0], [2, 1]]
    assert [bool(width) for width in drawn.marker.line.width] == [False, False, False, True, False]
    assert (drawn.marker.cmin, drawn.marker.cmax) == (0, 1)
    assert list(figure.layout.yaxis.ticktext) == ["0", "2"]


def test_heads_stand_in_the_order_of_their_number() -> None:
    heads = Heads(values=VALUES, layers=[0, 2], name="mass kept", by_value=True)
    (drawn,) = heads_grid(heads, **WORDS).data
    assert list(drawn.marker.color) == [0.75, 0.5, 0.25, 0.125, 0.0]
    assert list(zip(drawn.y, drawn.x, strict=True)) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    assert heads_frame(heads).columns.tolist() == ["layer", "head", "mass_kept"]
    assert heads_frame(heads).iloc[0].tolist() == [0, 2, 0.75]


def test_squares_of_many_heads_carry_no_number() -> None:
    many = Heads(values=np.full((48, 64), 0.5), layers=range(48), name="error")
    (drawn,) = heads_grid(many, **WORDS, width=268).data
    assert drawn.mode == "markers"
    assert len(drawn.x) == 48 * 64


def test_next_tokens_have_two_bars_each_and_their_text_is_text() -> None:
    found = [("<b>key</b>", 0.5, 0.25), ("\n", 0.125, 0.5)]
    figure = next_tokens(found, look=LOOK)
    assert [list(bar.x) for bar in figure.data] == [[50, 12.5], [25, 50]]
    labels = list(figure.layout.yaxis.ticktext)
    assert labels == ["&lt;b&gt;key&lt;/b&gt;  50 → 25", "↵  12.5 → 50"]
    framed = next_tokens(found, **WORDS)
    assert "&lt;b&gt;" in framed.layout.title.text
    assert next_tokens_frame(found).to_numpy().tolist() == [list(each) for each in found]


CURVES = [
    ErrorCurve(name="layer <1>", mean=[0.5, 0.25], least=[0.4, 0.2], most=[0.6, 0.3]),
    ErrorCurve(name="mean of the heads", mean=[1.0, None], least=[1.0, None], most=[1.0, None]),
]


@pytest.mark.parametrize("words", [{}, {"title": "<b>a title</b>", "note": "a note"}])
def test_a_line_lies_in_the_band_of_its_seeds(words: dict[str, str]) -> None:
    figure = error_curves(CURVES, [16, 64], across="rows", look=LOOK, **words)
    band, line = figure.data[:2]
    assert list(band.x) == [16, 64, 64, 16]
    assert list(band.y) == [0.6, 0.3, 0.2, 0.4]
    assert (list(line.x), list(line.y)) == ([16, 64], [0.5, 0.25])
    assert line.name == "layer &lt;1&gt;"
    assert list(figure.layout.xaxis.ticktext) == ["16", "64"]
    assert (figure.layout.title.text is not None) == bool(words)


def test_lines_are_a_table_and_a_sentence() -> None:
    frame = error_curves_frame(CURVES, [16, 64], across="random features")
    assert list(frame.columns) == ["random_features", "of", "mean", "least", "most"]
    assert frame.iloc[1].tolist() == [64, "layer <1>", 0.25, 0.2, 0.3]
    said = error_curves_words(CURVES, [16, 64], "rows")
    assert said.startswith("layer <1>: 0.5 at 16 rows, 0.25 at 64; ")
    assert said.endswith("none at 64")
