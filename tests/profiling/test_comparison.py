"""What differs between runs, and when their figures may not be compared."""

from dataclasses import replace

import pytest

from attnscope.kernels.errors import InvalidCall
from attnscope.profiling.comparison import ABSENT, compare
from tests.profiling.records import FAILED, RECORD, TIMING

SETTLED = replace(RECORD, timing=replace(TIMING, samples_s=(0.3,) * 20))
SLOWER = replace(
    SETTLED,
    cell=replace(RECORD.cell, backend="eager"),
    timing=replace(TIMING, samples_s=(0.6,) * 20),
)


def test_only_what_differs_is_told_and_figures_are_ratios_to_the_first():
    found = compare([SETTLED, SLOWER])
    assert [(each.name, each.values) for each in found.differences] == [
        ("backend", ("tiled", "eager"))
    ]
    figures = {figure.name: figure for figure in found.figures}
    assert figures["median"].ratios == (1.0, 2.0)
    assert figures["rate"].ratios == (1.0, 0.5)
    assert figures["peak memory"].values == (100, 100)
    assert figures["energy"].ratios == (None, None)
    assert found.cautions == ()


def test_a_failed_run_has_no_figure_and_says_what_happened():
    found = compare([SETTLED, FAILED])
    differences = {each.name: each.values for each in found.differences}
    assert differences["outcome"] == ("measured", "out_of_memory: needs 7 GiB")
    assert differences["kernel that ran"] == ("tiled", ABSENT)
    assert found.figures[0].ratios == (1.0, None)
    assert compare([FAILED, SETTLED]).figures[0].ratios == (None, None)


def test_what_one_run_alone_knows_is_told():
    other = replace(SETTLED, parameters=(("block", "128"), ("stages", "3")))
    (only,) = compare([SETTLED, other]).differences
    assert (only.name, only.values) == ("set stages", (ABSENT, "3"))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        pytest.param(
            replace(SETTLED, timing=replace(TIMING, samples_s=(1.0,))), "only 1 run", id="few"
        ),
        pytest.param(
            replace(SETTLED, timing=replace(TIMING, samples_s=(0.1, 0.3) * 10)), "span", id="spread"
        ),
        pytest.param(
            replace(SETTLED, machine=replace(RECORD.machine, name="H100")), "devices", id="device"
        ),
        pytest.param(
            replace(SETTLED, model=replace(RECORD.model, config_hash="f00")), "models", id="model"
        ),
        pytest.param(
            replace(SETTLED, cell=replace(RECORD.cell, length=64)), "numbers of tokens", id="tokens"
        ),
    ],
)
def test_figures_that_may_not_be_compared_are_cautioned_about(other, said: str):
    (caution,) = compare([SETTLED, other]).cautions
    assert said in caution


def test_one_run_is_no_comparison():
    with pytest.raises(InvalidCall, match="two or more"):
        compare([SETTLED])
