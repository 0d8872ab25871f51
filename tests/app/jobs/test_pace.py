import pytest

from attnscope.app.jobs.pace import Pace


def paced(reports, **options):
    """The estimate after reports of (seconds, share)."""
    clock = iter([second for second, _ in reports])
    pace = Pace(clock=lambda: next(clock), **options)
    return [pace.update(share) for _, share in reports][-1]


def test_the_first_report_knows_nothing():
    estimate = paced([(0.0, 0.0)])
    assert (estimate.share_per_s, estimate.eta_s) == (None, None)


def test_a_steady_job_has_its_rate_and_its_rest():
    estimate = paced([(second, second * 0.1) for second in range(5)])

    assert estimate.share_per_s == pytest.approx(0.1)
    assert estimate.eta_s == pytest.approx(6.0)


def test_a_slow_start_is_forgotten_after_the_window():
    reports = [(100.0 + second, 0.01 + second * 0.02) for second in range(20)]
    estimate = paced([(0.0, 0.0), *reports], window_s=5)

    assert estimate.share_per_s == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize(
    ("shares", "eta"), [((0.2, 0.2), None), ((0.5, 0.2), None), ((0.0, 1.0), 0.0)]
)
def test_a_job_that_stands_goes_back_or_ends(shares, eta):
    assert paced(list(enumerate(shares))).eta_s == eta
