"""The numbers and the colours that the charts of heads show."""

import json

import numpy as np
import pytest

from attnscope.app.figures.ablation import (
    HeadEffects,
    Removal,
    TokenLosses,
    diverging,
    head_effects,
    head_effects_frame,
    readable,
    removal_curve,
    removal_frame,
    rooted,
    token_losses,
    token_losses_frame,
)
from attnscope.app.figures.theme import DARK, LIGHT

EFFECTS = HeadEffects(
    values=np.array([[0.25, -1.0, 0.0], [0.04, 0.0, np.nan]]),
    whole=np.array([2.0, 0.01]),
    name="rise of the loss",
    chosen=((0, 1),),
)
LOSSES = TokenLosses(
    tokens=["<b>", "a", "\n", "c"], scored=[1, 2, 3], before=[1, 2, 3], after=[1, 6, 2], pinned=2
)


def test_every_head_and_layer_has_its_square_with_zero_in_the_middle() -> None:
    (squares,) = head_effects(EFFECTS, title="t", note="n", look=LIGHT, width=400).data
    assert list(zip(squares.x, squares.y, strict=True)) == [
        *((0, 0), (1, 0), (2, 0), (0, 1), (1, 1)),
        *((3.4, 0), (3.4, 1)),
    ]
    assert squares.marker.color == pytest.approx([0.5, -1, 0, 0.2, 0, 1, 0.1])
    assert (squares.marker.cmin, squares.marker.cmax) == (-1, 1)
    assert list(squares.marker.line.width) == [0, 3, 0, 0, 0, 0, 0]
    assert list(squares.text) == [".25", "\N{MINUS SIGN}1.0", "0", ".04", "0", "2.0", ".01"]
    assert [list(each[:2]) for each in squares.customdata][-2:] == [[0, -1], [1, -1]]
    assert squares.customdata[5][2] == "all heads of layer 0"


def test_many_heads_have_no_numbers_and_a_file_has_its_scale() -> None:
    many = HeadEffects(values=np.zeros((2, 32)), whole=np.zeros(2), name="KL")
    (squares,) = head_effects(many, title="t", note="n", look=DARK, width=400).data
    assert squares.mode == "markers"
    (filed,) = head_effects(EFFECTS, title="t", note="n", look=LIGHT).data
    assert list(filed.marker.colorbar.ticktext) == ["-1", "-0.25", "0", "+0.25", "+1"]
    assert list(filed.marker.colorbar.tickvals) == [-1, -0.5, 0, 0.5, 1]


def test_no_effect_at_all_fills_no_scale() -> None:
    assert rooted(np.array([1e-9]), 1e-3)[0] == pytest.approx(1e-3)
    quiet = HeadEffects(values=np.full((1, 1), 1e-9), whole=np.zeros(1), name="KL")
    (squares,) = head_effects(quiet, title="t", note="n", look=LIGHT).data
    assert max(squares.marker.color) < 0.01


@pytest.mark.parametrize("look", [LIGHT, DARK])
def test_the_scale_begins_at_the_ground_and_its_text_is_readable(look) -> None:
    scale = dict(diverging(look))
    assert scale[0.5] == look.masked

    def light(colour: str) -> float:
        red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    colours = {0.0: scale[0.5], 1.0: scale[1.0], -1.0: scale[0.0]}
    for share, ground in colours.items():
        (text,) = readable(np.array([share]), look)
        assert abs(light(text) - light(ground)) > 0.4


def test_the_curve_marks_the_last_point_within_the_rise() -> None:
    removal = Removal(
        removed=[0, 2, 3], losses=[1.0, 1.05, 3.0], order=["0.1", "<b>", "1.0"], rise=0.1, spared=2
    )
    figure = removal_curve(removal, look=LIGHT)
    (line,) = figure.data
    assert list(line.marker.size) == [5, 11, 5]
    assert list(line.customdata) == ["none", "&lt;b&gt;", "1.0"]
    assert figure.layout.shapes[0].y0 == 1.1
    frame = removal_frame(removal)
    assert frame["heads_ablated"].tolist() == [0, 2, 3]
    assert frame["last"].tolist() == ["", "<b>", "1.0"]
    assert removal_curve(removal, look=LIGHT, title="t", note="n").layout.title.text == "t"


def test_tokens_are_lit_by_the_change_of_their_loss() -> None:
    figure = token_losses(LOSSES, look=LIGHT, title="t", note="n")
    cells, texts = figure.data
    assert cells.z[0][:4] == pytest.approx([np.nan, 0, 1, -0.5], nan_ok=True)
    assert list(texts.text) == ["&lt;b&gt;", "a", "↵", "c"]
    assert texts.customdata[0] == [0, "not scored"]
    assert texts.customdata[2] == [2, "2.000 to 6.000 nats, +4.000"]
    (mark,) = figure.layout.shapes
    assert (mark.x0, mark.x1, mark.y0, mark.y1) == (1.5, 2.5, -0.5, 0.5)
    assert "<b>" not in json.dumps(figure.to_plotly_json(), default=str)


def test_the_tables_hold_the_numbers() -> None:
    heads = head_effects_frame(EFFECTS)
    assert heads["rise_of_the_loss"].tolist() == [0.25, -1.0, 0.0, 0.04, 0.0, 2.0, 0.01]
    assert heads["head"].fillna(-1).tolist() == [0, 1, 2, 0, 1, -1, -1]
    tokens = token_losses_frame(LOSSES)
    assert tokens["change_nats"].tolist() == [0, 4, -1]
    assert tokens["token"].tolist() == ["a", "\n", "c"]
