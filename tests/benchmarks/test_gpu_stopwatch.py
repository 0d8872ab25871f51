"""Time is taken in turns, cold, and within the budget: on a clock that the test turns."""

import pytest
import torch

from benchmarks.gpu.stopwatch import Stopwatch, alternate, stopwatch


class Clock:
    """A device whose calls take what they say, and a log of what happened."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def takes(self, name: str, milliseconds: float):
        def call() -> None:
            self.log.append(name)
            self.now += milliseconds

        return call

    def flush(self) -> None:
        self.log.append("flush")
        self.now += 1000

    @property
    def watch(self) -> Stopwatch:
        return Stopwatch(
            kind="a test's",
            mark=lambda: self.now,
            between=lambda start, end: end - start,
            wait=lambda: self.log.append("wait"),
            flush=self.flush,
            seconds=lambda: self.now / 1000,
        )


def test_only_the_call_is_timed_and_each_is_warm_before_any() -> None:
    clock = Clock()
    calls = {"a": clock.takes("a", 3), "b": clock.takes("b", 5)}
    samples = alternate(calls, clock.watch, seconds=1e9)
    assert set(samples["a"]) == {3}
    assert set(samples["b"]) == {5}
    assert clock.log[:5] == ["a", "a", "b", "b", "wait"]
    assert len(samples["a"]) == len(samples["b"]) == clock.watch.least_rounds


def test_they_take_turns_and_the_cache_is_flushed_before_each() -> None:
    clock = Clock()
    calls = {name: clock.takes(name, 1) for name in "abc"}
    alternate(calls, clock.watch, seconds=1e9)
    rounds = "".join(entry for entry in clock.log[7:] if entry in calls)
    assert rounds.startswith("abcbcacab")
    timed = clock.log[7:]
    assert all(timed[at - 1] == "flush" for at, entry in enumerate(timed) if entry in calls)


def test_a_budget_cuts_short_but_leaves_two_rounds() -> None:
    clock = Clock()
    calls = {"a": clock.takes("a", 1), "b": clock.takes("b", 1)}
    assert len(alternate(calls, clock.watch, seconds=0)["a"]) == 2
    # A round is two flushes and two calls, 2.002 seconds.
    assert len(alternate(calls, clock.watch, seconds=9)["a"]) == 5


def test_short_calls_are_timed_for_two_seconds_each() -> None:
    clock = Clock()
    clock.flush = lambda: None
    samples = alternate(
        {"a": clock.takes("a", 10), "b": clock.takes("b", 10)}, clock.watch, seconds=99
    )
    assert len(samples["a"]) == pytest.approx(200, abs=1)


def test_nothing_to_time_takes_no_time() -> None:
    assert alternate({}, Clock().watch, seconds=1) == {}


def test_without_a_gpu_the_record_says_so() -> None:
    watch = stopwatch(torch.device("cpu"))
    assert "nothing of a GPU" in watch.kind
    start = watch.mark()
    assert watch.between(start, watch.mark()) >= 0
