"""Durations are known here: the test turns the clock that the instrument reads."""

import time

import pytest
import torch

from attnscope.kernels.errors import InvalidCall
from attnscope.profiling import latency
from attnscope.profiling.latency import (
    Clock,
    Effort,
    Timing,
    cache_bytes,
    cache_sweeper,
    clock_of,
    ratio,
    time_call,
    time_calls,
)
from attnscope.profiling.measured import Measured
from tests.profiling.clocks import Hands

QUICK = Effort(runs=20, seconds=0, warmup_runs=2, warmup_seconds=0)


def timing(*samples: float) -> Timing:
    return Timing(
        samples_s=samples,
        first_s=1,
        queue_s=None,
        clock="",
        cache="hot",
        warmup_runs=1,
        shortened=False,
    )


def test_the_first_call_stands_apart_and_warm_up_is_in_no_sample() -> None:
    hands = Hands()
    found = time_call(hands.takes("a", 50, 7, 7, 0.25), hands.clock, QUICK)
    assert found.first_s == 50
    assert set(found.samples_s) == {0.25}
    assert (found.count, found.warmup_runs, found.shortened) == (20, 2, False)
    assert (found.median_s, found.p10_s, found.p90_s, found.least_s) == (0.25, 0.25, 0.25, 0.25)
    assert found.unsettled == ""


@pytest.mark.parametrize(
    ("seconds", "runs"), [(1.0, 20), (0.1, 20), (0.01, 200), (0.125, 20), (0.0625, 32)]
)
def test_at_least_twenty_runs_or_two_seconds_whichever_is_longer(seconds: float, runs: int) -> None:
    hands = Hands()
    found = time_call(hands.takes("a", seconds), hands.clock)
    assert found.count == pytest.approx(runs, abs=1)
    assert not found.shortened


def test_warm_up_goes_on_by_time_as_well_as_by_count() -> None:
    hands = Hands()
    effort = Effort(runs=1, seconds=0, warmup_runs=3, warmup_seconds=1)
    assert time_call(hands.takes("a", 0.125), hands.clock, effort).warmup_runs == 8
    assert time_call(hands.takes("a", 10), hands.clock, effort).warmup_runs == 3


@pytest.mark.parametrize(("budget", "runs"), [(0, 2), (5, 4), (12, 11)])
def test_a_budget_shortens_to_no_less_than_two_runs_and_says_so(budget: float, runs: int) -> None:
    hands = Hands()
    effort = Effort(runs=20, seconds=0, warmup_runs=0, warmup_seconds=0, budget_s=budget)
    found = time_call(hands.takes("a", 1), hands.clock, effort)
    assert found.shortened
    assert found.count == runs
    assert bool(found.unsettled) == (runs < latency.FEWEST_RUNS)


def test_calls_take_turns_in_an_order_drawn_every_round() -> None:
    hands = Hands()
    calls = {name: hands.takes(name, at) for at, name in enumerate("abc", start=1)}
    found = time_calls(calls, hands.clock, QUICK)
    assert {name: each.median_s for name, each in found.items()} == {"a": 1, "b": 2, "c": 3}
    turns = hands.log[-60:]
    rounds = ["".join(turns[at : at + 3]) for at in range(0, 60, 3)]
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len(set(rounds)) > 3
    again = Hands()
    time_calls({name: again.takes(name, 1) for name in "abc"}, again.clock, QUICK)
    assert again.log == hands.log


def test_a_call_shorter_than_a_turn_runs_until_its_turn_is_over() -> None:
    hands = Hands()
    calls = {"short": hands.takes("short", 2**-15), "long": hands.takes("long", 0.25)}
    found = time_calls(calls, hands.clock, QUICK)
    assert {name: each.count for name, each in found.items()} == {"short": 80, "long": 20}
    assert {name: each.median_s for name, each in found.items()} == {"short": 2**-15, "long": 0.25}
    assert "".join(name[0] for name in hands.log[-100:]).count("ssss") == 20


def test_a_short_call_that_is_prepared_runs_once_a_turn() -> None:
    hands = Hands()
    short, back = hands.takes("short", 2**-15), hands.takes("back", 1)
    assert time_call(short, hands.clock, QUICK, sweep=back).count == 20
    assert time_calls({"a": short}, hands.clock, QUICK, before={"a": back})["a"].count == 20


def test_what_drifts_drifts_for_all() -> None:
    hands = Hands()

    def slowing(name: str, factor: float):
        def call() -> None:
            hands.now += factor * (1 + hands.now / 100)

        return call

    calls = {"a": slowing("a", 1), "b": slowing("b", 2)}
    apart = {name: time_call(call, hands.clock, QUICK) for name, call in calls.items()}
    together = time_calls(calls, hands.clock, QUICK)
    assert abs(apart["b"].median_s / apart["a"].median_s - 2) > 0.3
    assert together["b"].median_s / together["a"].median_s == pytest.approx(2, rel=0.05)


def test_the_cache_is_swept_and_things_put_back_outside_the_time() -> None:
    hands = Hands()
    found = time_calls(
        {"a": hands.takes("a", 3)},
        hands.clock,
        QUICK,
        sweep=hands.takes("sweep", 100),
        before={"a": hands.takes("back", 10)},
    )["a"]
    assert set(found.samples_s) == {3}
    assert found.cache == "cold"
    assert hands.log[-3:] == ["back", "sweep", "a"]
    assert hands.log.count("back") == hands.log.count("a")


def test_every_timed_run_is_told_and_who_hears_of_it_may_end_it() -> None:
    hands = Hands()
    heard: list[tuple[str, float]] = []
    calls = {"a": hands.takes("a", 1), "b": hands.takes("b", 2)}
    found = time_calls(
        calls, hands.clock, QUICK, on_run=lambda name, taken: heard.append((name, taken))
    )
    for name in calls:
        assert tuple(taken for each, taken in heard if each == name) == found[name].samples_s

    def enough(name: str, taken: float) -> None:
        raise KeyboardInterrupt(name, taken)

    with pytest.raises(KeyboardInterrupt):
        time_calls(calls, hands.clock, QUICK, on_run=enough)


def test_a_call_that_is_only_queued_is_waited_for_and_its_queueing_told() -> None:
    hands = Hands()
    done = [0.0]

    def call() -> None:
        hands.now += 0.5
        done[0] = hands.now + 4

    def wait() -> None:
        hands.now = max(hands.now, done[0])

    def mark() -> float:
        return max(hands.now, done[0])

    clock = Clock(
        kind="queue",
        mark=mark,
        between=lambda start, end: end - start,
        wait=wait,
        host=lambda: hands.now,
        queues=True,
    )
    found = time_call(call, clock, QUICK)
    assert set(found.samples_s) == {4.5}
    assert found.first_s == 4.5
    assert found.queue_s == 0.5


def test_percentiles_are_those_of_the_samples() -> None:
    found = timing(*range(101))
    assert (found.median_s, found.p10_s, found.p90_s, found.least_s) == (50, 10, 90, 0)
    assert timing(4.0).p10_s == 4.0


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ([1.0] * 9, "only 9 runs, and a comparison needs 10"),
        ([1.0, 1.2] * 10, "spans 18% of the median, and a comparison allows 5%"),
        ([1.0, 1.01] * 10, ""),
    ],
)
def test_a_comparison_of_too_little_says_that_it_is_unsettled(
    samples: list[float], words: str
) -> None:
    settled = timing(*[2.0] * 20)
    found = ratio(timing(*samples), settled)
    assert found.value == pytest.approx(timing(*samples).median_s / 2)
    assert words in found.unsettled
    assert bool(found.unsettled) == bool(words)


def test_a_call_of_known_duration_on_the_real_clock() -> None:
    effort = Effort(runs=20, seconds=0, warmup_runs=1, warmup_seconds=0)
    found = time_call(lambda: time.sleep(0.005), clock_of(torch.device("cpu")), effort)
    assert 0.005 <= found.least_s <= found.median_s
    assert found.queue_s is None
    assert found.clock == "host clock"


def test_the_cache_of_this_machine_is_swept_whole() -> None:
    size = cache_bytes(torch.device("cpu"))
    if size is None:
        with pytest.raises(InvalidCall, match="is not known"):
            cache_sweeper(torch.device("cpu"))
        return
    assert cache_sweeper(torch.device("cpu"))().nbytes == size


def test_a_device_whose_cache_is_unknown_cannot_be_made_cold() -> None:
    with pytest.raises(InvalidCall, match="cache of meta is not known"):
        cache_sweeper(torch.device("meta"))


def test_there_is_a_value_or_a_reason() -> None:
    assert Measured(3.0).reason == ""
    assert Measured.missing("no GPU") == Measured(None, "no GPU")
    for wrong in ((None, ""), (0.0, "why")):
        with pytest.raises(AssertionError):
            Measured(*wrong)
