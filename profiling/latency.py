"""How long a call takes: warmed up, often enough, in turns with what it is compared to.

On a GPU the time between two events of the device's own queue; elsewhere the host's clock around a
call that was waited for. Several calls are timed A, B, A, B in one loop, in an order that is drawn
anew every round, so that whatever drifts (clocks, temperature, neighbours) drifts for all of them.
"""

import math
import os
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch

from attnscope.kernels.errors import InvalidCall

Cache = Literal["hot", "cold"]
Call = Callable[[], object]

FEWEST_RUNS = 10
WIDEST_SPREAD = 0.05
"""A comparison of fewer runs, or of a wider interquartile range over the median, is unsettled."""
_TURN_S = 1e-4
"""A shorter call runs several times in its turn: what is done between two turns would slow it by some per cent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """How time is taken on a device; every part can be replaced.

    Attributes:
        kind: What the seconds are, for the record.
        mark: A moment in the order of the device's own work.
        between: Seconds from one mark to a later one, once `wait` has returned.
        wait: Returns when the device has done all it was given.
        host: Seconds of the host, for warm-up and budgets.
        queues: Whether calls return before the device has done them.
    """

    kind: str
    mark: Callable[[], Any]
    between: Callable[[Any, Any], float]
    wait: Callable[[], None]
    host: Callable[[], float] = time.perf_counter
    queues: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is done for a figure.

    Attributes:
        runs: Timed runs of a call at least.
        seconds: Seconds of them at least, for each call; the longer of the two counts.
        warmup_runs: Runs before anything is timed, the first one apart.
        warmup_seconds: Seconds of them at least, for each call.
        budget_s: Seconds for everything together, after which two timed runs are enough and the
            result says that it was shortened; None for no limit.
    """

    runs: int = 20
    seconds: float = 2.0
    warmup_runs: int = 3
    warmup_seconds: float = 0.1
    budget_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The times of one call.

    Attributes:
        samples_s: Seconds of every timed run, in the order in which they were made.
        first_s: Seconds of the very first run, on the host's clock: compilation, autotuning and
            the first allocations are in it, and in no sample.
        queue_s: Median seconds the host needed to hand a run to the device; near the median, the
            run is bound by the host. None where the device is the host.
        clock: What the seconds are.
        cache: "cold" where the device's last-level cache was overwritten before every run.
        warmup_runs: Runs between the first and those that were timed.
        shortened: Whether a budget ended it before the runs and seconds that were asked for.
    """

    samples_s: tuple[float, ...]
    first_s: float
    queue_s: float | None
    clock: str
    cache: Cache
    warmup_runs: int
    shortened: bool

    @property
    def count(self) -> int:
        """Timed runs."""
        return len(self.samples_s)

    @property
    def median_s(self) -> float:
        """The figure to quote."""
        return statistics.median(self.samples_s)

    @property
    def p10_s(self) -> float:
        """10th percentile, interpolated."""
        return self._cut(10)

    @property
    def p90_s(self) -> float:
        """90th percentile, interpolated."""
        return self._cut(90)

    @property
    def least_s(self) -> float:
        """The fastest run."""
        return min(self.samples_s)

    @property
    def spread(self) -> float:
        """Interquartile range over the median."""
        return (self._cut(75) - self._cut(25)) / self.median_s if self.median_s else 0.0

    @property
    def unsettled(self) -> str:
        """Why no comparison should rest on this, in words; empty when one may."""
        if self.count < FEWEST_RUNS:
            return f"only {self.count} runs, and a comparison needs {FEWEST_RUNS}"
        if self.spread > WIDEST_SPREAD:
            return (
                f"the middle half of the runs spans {self.spread:.0%} of the median, "
                f"and a comparison allows {WIDEST_SPREAD:.0%}"
            )
        return ""

    def _cut(self, percent: int) -> float:
        if self.count == 1:
            return self.samples_s[0]
        return statistics.quantiles(self.samples_s, n=100, method="inclusive")[percent - 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """How the times of two calls compare.

    Attributes:
        value: Median of the one over the median of the other.
        unsettled: Why it should not be quoted; empty when it may.
    """

    value: float
    unsettled: str


def ratio(timing: Timing, other: Timing) -> Ratio:
    """`timing` over `other`: above 1, the other is faster."""
    doubts = dict.fromkeys(filter(None, (timing.unsettled, other.unsettled)))
    return Ratio(value=timing.median_s / other.median_s, unsettled="; ".join(doubts))


def clock_of(device: torch.device) -> Clock:
    """The clock for a device."""
    if device.type == "cuda":
        return Clock(
            kind="device events",
            mark=partial(_event, device),
            between=lambda start, end: start.elapsed_time(end) * 1e-3,
            wait=partial(torch.cuda.synchronize, device),
            queues=True,
        )
    mark = _mps_mark if device.type == "mps" else time.perf_counter
    return Clock(
        kind="host clock", mark=mark, between=lambda start, end: end - start, wait=_nothing
    )


def cache_bytes(device: torch.device) -> int | None:
    """Bytes of the device's last-level cache; None where nobody says."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).L2_cache_size) or None
    if device.type == "cpu" and "SC_LEVEL3_CACHE_SIZE" in os.sysconf_names:
        return os.sysconf("SC_LEVEL3_CACHE_SIZE") or None
    return None


def cache_sweeper(device: torch.device) -> Callable[[], torch.Tensor]:
    """A call that overwrites the device's last-level cache, so that the next one finds it cold.

    Raises:
        InvalidCall: The size of that cache is not known.
    """
    size = cache_bytes(device)
    if size is None:
        raise InvalidCall(
            f"The size of the cache of {device} is not known, so it cannot be made cold.",
            "Time with a hot cache.",
        )
    return torch.empty(size, dtype=torch.uint8, device=device).zero_


def time_call(
    call: Call, clock: Clock, effort: Effort | None = None, *, sweep: Call | None = None
) -> Timing:
    """The times of one call; see `time_calls`."""
    return time_calls({"": call}, clock, effort, sweep=sweep)[""]


def time_calls(
    calls: Mapping[str, Call],
    clock: Clock,
    effort: Effort | None = None,
    *,
    sweep: Call | None = None,
    before: Mapping[str, Call] | None = None,
    seed: int = 0,
    on_run: Callable[[str, float], None] | None = None,
) -> dict[str, Timing]:
    """The times of calls that are compared: in turns, in one loop, in an order drawn every round.

    Args:
        calls: What is timed, by name.
        clock: How.
        effort: How much; the rule of at least 20 runs and 2 s when None.
        sweep: Run untimed before every run to make the cache cold; see `cache_sweeper`.
        before: Run untimed before every run of the call of that name, to put back what it changed.
        seed: Of the order.
        on_run: Told, between two runs, the name and the seconds of the one that is over; what it
            raises ends the timing.
    """
    session = _Session(
        calls=calls,
        clock=clock,
        effort=effort or Effort(),
        before=before or {},
        sweep=sweep,
        seed=seed,
        on_run=on_run or _unheard,
    )
    return session.times()


@dataclass(slots=True, kw_only=True)
class _Session:
    """One loop of timed runs."""

    calls: Mapping[str, Call]
    clock: Clock
    effort: Effort
    before: Mapping[str, Call]
    sweep: Call | None
    seed: int
    on_run: Callable[[str, float], None]
    began: float = field(init=False)

    def times(self) -> dict[str, Timing]:
        """Warm up, take turns, put together."""
        self.began = self.clock.host()
        first = {name: self._first(name) for name in self.calls}
        warm, turn = {}, {}
        for name in self.calls:
            warm[name], seconds = self._warm_up(name)
            turn[name] = self._runs_a_turn(name, seconds)
        samples: dict[str, list[float]] = {name: [] for name in self.calls}
        queued: dict[str, list[float]] = {name: [] for name in self.calls}
        order, draw = list(self.calls), random.Random(self.seed)
        began, rounds = self.clock.host(), 0
        while not (enough := self._is_enough(rounds, began)) and not (
            rounds >= 2 and self._is_spent()
        ):
            draw.shuffle(order)
            for name in order:
                taken, handed = self._timed(name, turn[name])
                samples[name] += taken
                queued[name].append(handed)
                for each in taken:
                    self.on_run(name, each)
            rounds += 1
        return {
            name: Timing(
                samples_s=tuple(taken),
                first_s=first[name],
                queue_s=statistics.median(queued[name]) if self.clock.queues else None,
                clock=self.clock.kind,
                cache="hot" if self.sweep is None else "cold",
                warmup_runs=warm[name],
                shortened=not enough,
            )
            for name, taken in samples.items()
        }

    def _first(self, name: str) -> float:
        self._prepare(name)
        self.clock.wait()
        began = self.clock.host()
        self.calls[name]()
        self.clock.wait()
        return self.clock.host() - began

    def _warm_up(self, name: str) -> tuple[int, float]:
        """How many runs it took, and the host's seconds of the fastest."""
        began, runs, least = self.clock.host(), 0, math.inf
        while (
            runs < self.effort.warmup_runs or self.clock.host() - began < self.effort.warmup_seconds
        ) and not self._is_spent():
            self._prepare(name)
            start = self.clock.host()
            self.calls[name]()
            self.clock.wait()
            least = min(least, self.clock.host() - start)
            runs += 1
        return runs, least

    def _runs_a_turn(self, name: str, seconds: float) -> int:
        alone = self.clock.queues or self.sweep is not None or name in self.before
        return 1 if alone else max(1, math.ceil(_TURN_S / max(seconds, 1e-6)))

    def _timed(self, name: str, runs: int) -> tuple[list[float], float]:
        """Seconds of each run of a turn, and those the host needed to hand it over."""
        self._prepare(name)
        if self.sweep is not None:
            self.sweep()
        call, mark, host = self.calls[name], self.clock.mark, self.clock.host
        between = self.clock.between
        if not self.clock.queues:
            marks = []
            for _ in range(runs):
                # Nothing but the call between the marks.
                start = mark()
                call()
                end = mark()
                marks.append((start, end))
            return [between(start, end) for start, end in marks], 0.0
        start, began = mark(), host()
        call()
        handed = host() - began
        end = mark()
        self.clock.wait()
        return [between(start, end)], handed

    def _prepare(self, name: str) -> None:
        if name in self.before:
            self.before[name]()

    def _is_enough(self, rounds: int, began: float) -> bool:
        least = self.effort.seconds * len(self.calls)
        return rounds >= self.effort.runs and self.clock.host() - began >= least

    def _is_spent(self) -> bool:
        budget = self.effort.budget_s
        return budget is not None and self.clock.host() - self.began >= budget


def _event(device: torch.device) -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def _mps_mark() -> float:
    torch.mps.synchronize()
    return time.perf_counter()


def _nothing() -> None:
    pass


def _unheard(name: str, seconds: float) -> None:
    del name, seconds
