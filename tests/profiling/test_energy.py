"""Energy against sums that can be done by hand."""

import pytest

from attnscope.profiling.energy import energy
from attnscope.profiling.measured import Measured
from attnscope.profiling.sources import Sample


def sampled(*, power=None, counter=None, step: float = 0.05, until: float = 5.0) -> list[Sample]:
    moments = [step * at for at in range(int(until / step) + 1)]
    return [
        Sample(
            at_s=moment,
            power_w=None if power is None else power(moment),
            energy_j=None if counter is None else counter(moment),
        )
        for moment in moments
    ]


@pytest.mark.parametrize(("start", "end"), [(1.0, 3.0), (1.01, 3.02), (0.0, 5.0), (2.01, 2.02)])
def test_constant_power_times_time(start: float, end: float) -> None:
    found = energy(sampled(power=lambda _: 300.0), start, end, {})
    assert found.joules.value == pytest.approx(300 * (end - start))
    assert (found.method, found.seconds) == ("power", end - start)


def test_rising_power_is_the_area_under_it() -> None:
    found = energy(sampled(power=lambda at: 100 * at), 1.0, 3.0, {})
    assert found.joules.value == pytest.approx(100 * (9 - 1) / 2)


def test_the_counter_goes_before_the_power() -> None:
    samples = sampled(power=lambda _: 1.0, counter=lambda at: 7000 + 250 * at)
    found = energy(samples, 1.02, 2.52, {})
    assert found.joules.value == pytest.approx(375)
    assert found.method == "counter"


@pytest.mark.parametrize(
    ("samples", "missing", "reason"),
    [
        ([], {"power_w": "no meter"}, "no meter"),
        (sampled(), {"power_w": "no meter"}, "no meter"),
        (sampled(power=lambda _: 1.0, until=2.0), {}, "the samples do not cover the run"),
        (sampled(power=lambda _: 1.0)[:1], {}, "the samples do not cover the run"),
    ],
)
def test_without_a_meter_there_is_a_reason_and_no_zero(
    samples: list[Sample], missing: dict[str, str], reason: str
) -> None:
    found = energy(samples, 1.0, 3.0, missing)
    assert found.joules == Measured.missing(reason)
    assert found.method == ""
