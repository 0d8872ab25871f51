"""The charts of Runs: what was measured as lines, what failed as crosses, nothing that acts."""

import pytest

from attnscope.app.figures.runs import KIND_COLOURS, memory_over_time, over_length, samples
from attnscope.app.figures.sweep import SweepPoint
from attnscope.app.figures.theme import DARK, LIGHT, backend_colour
from attnscope.profiling.memory_timeline import KINDS

STYLE = {"title": "<b>Title</b>", "note": "<i>note</i>"}


def point(line: str, length: int, values: tuple[float, float, float] | None, phase="prefill"):
    backend = line.partition(",")[0]
    return SweepPoint(
        line=line,
        backend=backend,
        phase=phase,
        length=length,
        value=values,
        words="<u>x</u>",
    )


LATENCIES = [
    point("eager, float32", 64, (2, 1, 3)),
    point("eager, float32", 512, (20, 10, 30)),
    point("eager, float32", 4096, None),
    point("eager, bfloat16", 64, (4, 4, 4)),
    point("tiled, float32", 64, (4, 4, 4), phase="decode"),
]


@pytest.mark.parametrize("look", [LIGHT, DARK], ids=lambda look: look.name)
def test_each_line_is_named_once_and_lines_of_one_backend_differ_in_their_dash(look):
    figure = over_length(LATENCIES, LATENCIES[:3], look=look, **STYLE)
    named = [trace.name for trace in figure.data if trace.showlegend]
    assert sorted(named) == ["eager, bfloat16", "eager, float32", "tiled, float32"]
    lines = {trace.name: trace.line for trace in figure.data if trace.mode == "lines+markers"}
    one, other = lines["eager, float32"], lines["eager, bfloat16"]
    assert one.color == other.color == backend_colour("eager")
    assert (one.dash, other.dash) == ("solid", "dash")
    assert figure.layout.paper_bgcolor == look.ground


def test_a_failure_is_a_cross_above_all_that_was_measured():
    figure = over_length(LATENCIES, LATENCIES[:3], look=LIGHT, **STYLE)
    crosses = [t for t in figure.data if t.mode == "markers" and t.x]
    assert [list(each.x) for each in crosses] == [[4096], [4096]]
    assert crosses[0].y[0] > 30


def test_text_of_a_run_is_inert():
    figure = over_length(LATENCIES, [], look=LIGHT, **STYLE)
    assert figure.data[0].text[0] == "&lt;u&gt;x&lt;/u&gt;"
    assert figure.layout.title.text == "&lt;b&gt;Title&lt;/b&gt;"


@pytest.mark.parametrize("values", [(12, 11, 28), (0.001, 0.001, 900), (5, 5, 5)])
def test_the_axis_has_a_few_round_ticks_in_sight(values: tuple[float, float, float]):
    figure = over_length([point("eager", 64, values)], [], look=LIGHT, **STYLE)
    ticks = figure.layout.yaxis.tickvals
    assert 2 <= len(ticks) <= 12
    assert all(min(values) / 2 <= tick <= max(values) * 3 for tick in ticks)


def test_samples_are_drawn_in_the_order_they_ran():
    figure = samples((0.002, 0.001), (0.001, 0.0015, 0.002), look=LIGHT, **STYLE)
    assert list(figure.data[0].y) == [2, 1]
    assert [shape.type for shape in figure.layout.shapes] == ["rect", "line"]


def test_memory_is_stacked_by_kind_and_held_until_it_changes():
    nbytes = [[2**20, 0], [2**20, 2**21]]
    figure = memory_over_time(("weights", "scores"), (0, 0.5), nbytes, look=LIGHT, **STYLE)
    assert [list(trace.y) for trace in figure.data] == [[1, 1], [0, 2]]
    assert {trace.line.shape for trace in figure.data} == {"hv"}


def test_every_kind_of_memory_has_a_colour():
    assert set(KINDS) == set(KIND_COLOURS)
