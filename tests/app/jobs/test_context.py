import threading

import pytest

from attnscope.app.jobs.context import Context, Resources
from attnscope.app.settings import Settings
from attnscope.kernels.errors import JobCancelled


@pytest.fixture
def told():
    return []


@pytest.fixture
def context(told):
    return Context(settings=Settings(), device="cpu", resources=Resources(), report=told.append)


def test_a_new_step_is_told_at_once_and_the_rest_now_and_then(context, told):
    for share in range(100):
        context.progress(share / 1000, "Reading")
    context.progress(0.2, "Running", total=6, unit="layers")

    assert [(each.step, each.unit) for each in told] == [
        ("Reading", "share"),
        ("Running", "layers"),
    ]


def test_the_end_is_always_told_and_shares_stay_within_bounds(context, told):
    context.progress(-3, "Reading")
    context.progress(1.5)
    assert [(each.share, each.step) for each in told] == [(0.0, "Reading"), (1.0, "Reading")]


def test_a_part_covers_its_share_of_the_whole(context, told):
    callback = context.part(0.2, 0.6, "Loading")
    callback(0.5)
    callback(1.0, "reading 3 MiB of weights")
    assert [(each.share, each.step) for each in told] == [
        (pytest.approx(0.4), "Loading"),
        (pytest.approx(0.6), "Loading: reading 3 MiB of weights"),
    ]


def test_a_cancelled_job_stops_at_its_next_report(context, told):
    context.stop.set()
    with pytest.raises(JobCancelled):
        context.progress(0.5)
    assert told == []


def test_a_resource_is_made_once_by_many_threads():
    resources, made = Resources(), []
    threads = [
        threading.Thread(target=resources.get, args=("models", lambda: made.append(1)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]
