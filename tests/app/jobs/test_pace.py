import pytest

from attnscope.app.jobs.pace import Pace


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_the_first_report_knows_nothing():
    estimate = Pace(clock=Clock()).update(0.0)
    assert (estimate.share_per_s, estimate.eta_s) == (None, None)


def test_a_steady_job_has_its_rate_and_its_rest():
    clock = Clock()
    pace = Pace(clock=clock)
    for second in range(5):
        clock.now = second
        estimate = pace.update(second * 0.1)

    assert estimate.share_per_s == pytest.approx(0.1)
    assert estimate.eta_s == pytest.approx(6.0)


def test_a_slow_start_is_forgotten_after_the_window():
    clock = Clock()
    pace = Pace(window_s=5, clock=clock)
    pace.update(0.0)
    for second in range(20):
        clock.now = 100.0 + second
        estimate = pace.update(0.01 + second * 0.02)

    assert estimate.share_per_s == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize(
    ("shares", "eta"), [((0.2, 0.2), None), ((0.5, 0.2), None), ((0.0, 1.0), 0.0)]
)
def test_a_job_that_stands_goes_back_or_ends(shares, eta):
    clock = Clock()
    pace = Pace(clock=clock)
    for share in shares:
        clock.now += 1
        estimate = pace.update(share)

    assert estimate.eta_s == eta
