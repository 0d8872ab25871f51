from dataclasses import replace
from typing import Any

import pytest

from attnscope.app.components.profile_plan import matrix_html
from attnscope.app.figures.profile import KIND_COLOURS, Part, cache, kernels, parts, timeline
from attnscope.app.figures.roofline import Achieved, Ceiling, roofline
from attnscope.app.figures.sweep import SweepPoint, over_length
from attnscope.app.figures.theme import DARK, LIGHT
from attnscope.app.files.profile import figure_of
from attnscope.app.jobs.profile_records import described
from attnscope.app.words.profile import cache_measured, predicted
from attnscope.profiling.energy import Energy
from attnscope.profiling.measured import Measured
from attnscope.profiling.memory_timeline import KINDS
from tests.profiling.records import FAILED, RECORD


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


def test_the_roof_slopes_up_to_where_memory_no_longer_binds():
    cells = [
        ("tiled", "prefill", 20.0, 3e9, "tiled", "<b>"),
        ("eager", "decode", 0.5, 1e8, "", "w"),
        ("tiled", "decode", 0.6, 2e8, "tiled", "w"),
    ]
    points = [
        Achieved(
            backend=backend,
            phase=phase,
            intensity=intensity,
            flops_per_second=rate,
            kernel=kernel,
            words=words,
        )
        for backend, phase, intensity, rate, kernel, words in cells
    ]
    ceilings = [Ceiling(name="float32, measured", flops_per_second=5e10, bytes_per_second=1e10)]
    roof, tiled, eager = roofline(points, ceilings, look=LIGHT).data
    assert roof.x[1] == 5
    assert list(roof.y)[1:] == [50, 50]
    low = next(iter(roof.x))
    assert next(iter(roof.y)) == pytest.approx(10 * low)
    assert low < 0.5
    assert (list(tiled.x), list(tiled.y), tiled.text[0]) == ([20, 0.6], [3, 0.2], "&lt;b&gt;")
    assert list(tiled.marker.symbol) == ["circle", "diamond"]
    assert (tiled.name, eager.name) == ("tiled · tiled", "eager")


def test_the_cache_is_predicted_as_lines_and_measured_as_points():
    lines = {"grown": [2**20, 2**21], "paged": [2**22, 2**22]}
    grown, paged, measured = cache([1, 2], lines, [(2, 2**21)], look=LIGHT).data
    assert (list(grown.y), list(paged.y)) == ([1, 2], [4, 4])
    assert grown.line.color != paged.line.color
    assert (list(measured.x), list(measured.y), measured.mode) == ([2], [2], "markers")


def test_of_the_measured_those_stand_beside_the_lines_that_they_are_lines_of():
    cell = {"phase": "decode", "length": 64, "batch": 1, "dtype": "float32", "cache_bytes": 7}
    others = [
        {**cell, name: other}
        for name, other in (("phase", "prefill"), ("batch", 2), ("cache_bytes", None))
    ]
    assert cache_measured(
        {"cache": {"batch": 1, "dtype": "float32"}, "records": [cell, *others]}
    ) == [(65, 7)]


def test_power_is_drawn_where_a_meter_told_and_not_as_crosses_alone():
    drawn = replace(RECORD, energy=Energy(joules=Measured(60.0), seconds=2.0, method="power"))
    found = {"records": [described(drawn), described(RECORD), described(FAILED)]}
    figure = figure_of("power", found, {}, look=LIGHT)
    assert figure is not None
    lines = [trace for trace in figure.data if trace.mode == "lines+markers"]
    assert [list(line.y) for line in lines] == [[30]]
    untold = {"records": [described(RECORD), described(FAILED)]}
    assert figure_of("power", untold, {}, look=LIGHT) is None
    assert figure_of("throughput", untold, {}, look=LIGHT) is not None


def test_beside_a_prediction_stands_the_measured_with_the_error():
    cell = {"backend": "tiled", "phase": "decode", "batch": 1, "length": 64, "dtype": "float32"}
    known = {"predicted_bytes": 101, "allocated_bytes": 100, "seconds": [0.03, 0.02, 0.04]}
    each = {**cell, **known, "prediction": {"seconds": 0.01}, "failure": None}
    failed = {**each, "failure": {"outcome": "refused"}}
    unforetold = {**each, "prediction": None, "predicted_bytes": None}
    (row,) = predicted([each, failed, unforetold])
    assert row[5:] == (
        "101\u202fB",
        "100\u202fB",
        "+1.00\u202f%",
        "10.0\u202fms",
        "30.0\u202fms",
        "3x",
    )


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, "1.00\u202fMiB"),
        ({"predicted_bytes": None}, "not known"),
        ({"predicted_s": 0.0123}, "≥ 12.3\u202fms"),
        ({"skip": "too large"}, "1.00\u202fMiB, skipped"),
        ({"refusal": "<b>no</b>"}, "eager: &lt;b&gt;no&lt;/b&gt;"),
    ],
)
def test_a_cell_of_the_plan_says_what_it_takes_or_why_it_is_not_run(changed, words):
    cell = {"backend": "eager", "phase": "prefill", "batch": 1, "length": 64, "dtype": "float32"}
    told = matrix_html(
        [
            {
                **cell,
                "predicted_bytes": 2**20,
                "predicted_s": None,
                "skip": "",
                "refusal": "",
                **changed,
            }
        ],
        1,
    )
    assert words in told
    assert "<b>" not in told
