from typing import Any

import pytest

from attnscope.app.components.profile_plan import matrix_html
from attnscope.app.figures.profile import KIND_COLOURS, Part, kernels, parts, timeline
from attnscope.app.figures.sweep import SweepPoint, over_length
from attnscope.app.figures.theme import DARK, LIGHT
from attnscope.profiling.memory_timeline import KINDS


def test_a_bar_adds_up_to_its_layer_and_what_lies_outside_stands_at_the_ends():
    found = [
        Part(kind=kind, layer=layer, milliseconds=ms)
        for kind, layer, ms in [
            ("embedding", None, 1),
            ("norm", 0, 2),
            ("attention", 0, 5),
            ("norm", 0, 3),
            ("attention", 1, 7),
            ("head", None, 4),
        ]
    ]
    figure = parts(found, look=DARK)
    drawn = {bar.name: dict(zip(bar.x, bar.y, strict=True)) for bar in figure.data}
    assert drawn["norm"] == {"layer 0": 5}
    assert drawn["attention"] == {"layer 0": 5, "layer 1": 7}
    assert figure.layout.xaxis.categoryarray == ("embedding", "layer 0", "layer 1", "head")
    assert figure.layout.paper_bgcolor == DARK.ground


def test_every_kind_of_memory_has_an_area_and_what_was_never_there_has_none():
    assert set(KIND_COLOURS) == set(KINDS)
    rows = [[2**20 * (kind == "weights") + 2**21 * (kind == "scores") for kind in KINDS]] * 2
    figure = timeline(KINDS, [0.0, 0.002], rows, look=LIGHT)
    assert {area.name: list(area.y) for area in figure.data} == {
        "weights": [1, 1],
        "scores": [2, 2],
    }
    assert list(figure.data[0].x) == [0, 2]
    assert len({area.stackgroup for area in figure.data}) == 1


def test_a_kernels_name_is_inert():
    figure = kernels(["<b>mm</b>"], [0.25], look=LIGHT)
    assert figure.data[0].y == ("&lt;b&gt;mm&lt;/b&gt;",)
    assert list(figure.data[0].x) == [25]


def test_beside_measured_memory_stands_what_was_predicted_and_a_failure_above():
    shared: dict[str, Any] = {"line": "eager", "backend": "eager", "phase": "prefill", "words": "w"}
    points = [
        SweepPoint(length=64, value=(10, 10, 10), predicted=11, **shared),
        SweepPoint(length=128, value=None, predicted=40, **shared),
    ]
    line, predicted, crosses = over_length(points, "memory", look=LIGHT).data
    assert (list(line.x), list(line.y)) == ([64], [10])
    assert (list(predicted.x), list(predicted.y)) == ([64, 128], [11, 40])
    assert (list(crosses.x), crosses.marker.symbol) == ([128], "x")
    assert crosses.y[0] > 10


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, "1.00\u202fMiB"),
        ({"predicted_bytes": None}, "not known"),
        ({"skip": "too large"}, "1.00\u202fMiB, skipped"),
        ({"refusal": "<b>no</b>"}, "eager: &lt;b&gt;no&lt;/b&gt;"),
    ],
)
def test_a_cell_of_the_plan_says_what_it_takes_or_why_it_is_not_run(changed, words):
    cell = {"backend": "eager", "phase": "prefill", "batch": 1, "length": 64, "dtype": "float32"}
    told = matrix_html(
        [{**cell, "predicted_bytes": 2**20, "skip": "", "refusal": "", **changed}], 1
    )
    assert words in told
    assert "<b>" not in told
