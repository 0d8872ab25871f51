"""How long each module of a model takes, by marks at its ends; and what the marks themselves cost."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from attnscope.models.parts import Part
from attnscope.profiling.latency import Clock, Effort, Ratio, Timing, ratio, time_calls

Marks = dict[str, list[tuple[Any, Any]]]
"""Of one run: for each module, the moments at which it began and ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartTime:
    """One module's time in a run.

    Attributes:
        name: The module's.
        kind: What it does, see `models.parts.Part`.
        layer: In which layer, from 0; None outside the layers.
        median_s: Over the runs; the sum where a run calls it more than once.
        p10_s: 10th percentile.
        p90_s: 90th percentile.
        share: Of the whole run's median.
    """

    name: str
    kind: str
    layer: int | None
    median_s: float
    p10_s: float
    p90_s: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PartTimes:
    """Every module's time.

    Attributes:
        parts: In the order in which they were given; those that did not run are left out.
        overhead: The watched run over the same run unwatched, timed in turns.
        watched: The runs that were watched.
    """

    parts: tuple[PartTime, ...]
    overhead: Ratio
    watched: Timing

    def slowest(self, kind: str) -> PartTime:
        """The part of most time among those of a kind."""
        return max(
            (each for each in self.parts if each.kind == kind), key=lambda each: each.median_s
        )

    def by_kind(self) -> dict[str, float]:
        """Median seconds of each kind, all layers together; a layer holds its parts."""
        total: dict[str, float] = defaultdict(float)
        for each in self.parts:
            total[each.kind] += each.median_s
        return dict(total)


def time_parts(
    call: Callable[[], object],
    parts: Sequence[Part],
    clock: Clock,
    effort: Effort | None = None,
    *,
    before: Callable[[], object] | None = None,
) -> PartTimes:
    """Times the parts of a model while a call runs through them.

    Args:
        call: Runs the model.
        parts: Which; they may lie in each other.
        clock: How.
        effort: How much; see `latency.time_calls`.
        before: Run untimed before every run, to put back what it changed.
    """
    runs: list[Marks] = []

    def watched() -> None:
        marks: Marks = defaultdict(list)
        with _marked(parts, clock, marks):
            call()
        runs.append(marks)

    back = {} if before is None else {"bare": before, "watched": before}
    timings = time_calls({"bare": call, "watched": watched}, clock, effort, before=back)
    whole = timings["watched"]
    timed = runs[-whole.count :]
    clock.wait()
    found = [
        _part_time(part, [_seconds(marks[part.name], clock) for marks in timed], whole.median_s)
        for part in parts
        if timed[0][part.name]
    ]
    return PartTimes(parts=tuple(found), overhead=ratio(whole, timings["bare"]), watched=whole)


@contextmanager
def _marked(parts: Iterable[Part], clock: Clock, marks: Marks) -> Iterator[None]:
    began: dict[str, Any] = {}

    def begin(name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            began[name] = clock.mark()

        return hook

    def end(name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            marks[name].append((began[name], clock.mark()))

        return hook

    handles = []
    for part in parts:
        handles.append(part.module.register_forward_pre_hook(begin(part.name)))
        handles.append(part.module.register_forward_hook(end(part.name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _seconds(marks: list[tuple[Any, Any]], clock: Clock) -> float:
    return sum(clock.between(start, end) for start, end in marks)


def _part_time(part: Part, samples: list[float], whole_s: float) -> PartTime:
    cuts = statistics.quantiles(samples, n=10, method="inclusive") if len(samples) > 1 else samples
    median = statistics.median(samples)
    return PartTime(
        name=part.name,
        kind=part.kind,
        layer=part.layer,
        median_s=median,
        p10_s=cuts[0],
        p90_s=cuts[-1],
        share=median / whole_s if whole_s else 0.0,
    )
