"""The pictures of a check: every head where it belongs, a wrong one marked by more than a colour."""

import numpy as np
import pytest

from attnscope.app.figures.backends import (
    Bar,
    HeadCell,
    head_errors,
    latencies,
    mebibytes,
    memories,
    milliseconds,
)
from attnscope.app.figures.theme import DARK, LIGHT, backend_colour

CELLS = [
    HeadCell(layer=2, head=0, relative=1e-7, wrong=False),
    HeadCell(layer=2, head=1, relative=3e-2, wrong=True),
    HeadCell(layer=5, head=0, relative=None, wrong=True),
    HeadCell(layer=5, head=1, relative=0.0, wrong=False),
    HeadCell(layer=7, head=0, relative=None, wrong=False),
]


@pytest.mark.parametrize("look", [LIGHT, DARK], ids=["light", "dark"])
def test_heads_stand_in_their_layers(look):
    grid, numbers, marks = head_errors(CELLS, look=look).data
    assert list(grid.y) == ["2", "5", "7"]
    assert grid.z[0].tolist() == pytest.approx(np.log10([1e-7, 3e-2]).tolist())
    assert np.isnan(grid.z[1][0])
    assert list(numbers.text) == ["1e-07", "3e-02", "NaN", "0e+00", "not judged", ""]
    assert [*zip(marks.y, marks.x, strict=True)] == [("2", 1), ("5", 0)]
    # An error of exactly 0 is drawn at the floor, not left out.
    assert (grid.zmin, grid.zmax) == (-9, -1)


def test_many_heads_have_no_numbers_and_right_ones_no_mark():
    cells = [HeadCell(layer=0, head=at, relative=1e-7, wrong=False) for at in range(17)]
    (grid,) = head_errors(cells, look=LIGHT).data
    assert np.asarray(grid.z).shape == (1, 17)
    assert grid.zmax > grid.zmin


def test_bars_have_their_backends_colours_and_spreads():
    bars = [milliseconds("eager", (0.2, 0.1, 0.4)), milliseconds("tiled", (0.1, 0.1, 0.1))]
    (trace,) = latencies(bars, look=LIGHT).data
    assert list(trace.y) == ["eager", "tiled"]
    assert list(trace.x) == [200.0, 100.0]
    assert list(trace.error_x.array) == [200.0, 0.0]
    assert list(trace.error_x.arrayminus) == [100.0, 0.0]
    assert list(trace.marker.color) == [backend_colour("eager"), backend_colour("tiled")]


def test_memory_has_no_spread():
    assert mebibytes("eager", 3 * 2**20) == Bar(backend="eager", value=3.0)
    (trace,) = memories([mebibytes("eager", 3 * 2**20)], look=DARK).data
    assert not trace.error_x.visible
