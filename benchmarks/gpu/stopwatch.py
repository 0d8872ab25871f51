"""Times calls in turns: device events on a GPU, the host's clock elsewhere, the cache cold each time.

The figures of a call are milliseconds; those that are compared were taken alternately in one loop.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

Call = Callable[[], object]

FLUSH_BYTES = 2**31
"""Written between runs: many times any L2 cache, and long enough (0.5 ms at 4 TB/s) that Python has
queued the next run before the device is done, so that what is timed is the device alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopwatch:
    """How time is taken; every part can be replaced.

    Attributes:
        kind: What the milliseconds are, for the record.
        mark: A moment in the device's own order of work.
        between: Milliseconds from one mark to a later one, once `wait` has returned.
        wait: Returns when the device has done all it was given.
        flush: Evicts what the last call left in the cache.
        seconds: The host's clock, for budgets.
        least_rounds: Timed runs of a call at least, unless the budget cuts them short.
        least_seconds: Seconds of them at least; the longer of the two counts.
        graph: Makes a call one graph that the device is given at once, so that no gap between its
            kernels is the host's; None where there are no graphs.
    """

    kind: str
    mark: Callable[[], Any]
    between: Callable[[Any, Any], float]
    wait: Callable[[], None]
    flush: Callable[[], None]
    seconds: Callable[[], float] = time.monotonic
    least_rounds: int = 20
    least_seconds: float = 2.0
    graph: Callable[[Call], Call] | None = None


def stopwatch(device: torch.device) -> Stopwatch:
    """The stopwatch for a device."""
    return _events(device) if device.type == "cuda" else _host()


def _events(device: torch.device) -> Stopwatch:
    flushed = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device=device)

    def mark() -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def flush() -> None:
        flushed.zero_()

    return Stopwatch(
        kind="device events, L2 flushed",
        mark=mark,
        between=lambda start, end: start.elapsed_time(end),
        wait=lambda: torch.cuda.synchronize(device),
        flush=flush,
        graph=_captured,
    )


def _captured(call: Call) -> Call:
    """The call as a CUDA graph, captured after one run on a stream of its own, as PyTorch asks."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def _host() -> Stopwatch:
    return Stopwatch(
        kind="host clock of a CPU, which says nothing of a GPU",
        mark=time.perf_counter,
        between=lambda start, end: 1e3 * (end - start),
        wait=lambda: None,
        flush=lambda: None,
        # Two show that it works, and no more can be learnt from it.
        least_rounds=2,
        least_seconds=0.0,
    )


def alternate(
    calls: Mapping[str, Call], watch: Stopwatch, *, seconds: float
) -> dict[str, list[float]]:
    """Milliseconds of each call, taken in turns: A B C, B C A, C A B and so on.

    Args:
        calls: What is compared, by name; each is run twice before anything is timed.
        watch: How time is taken.
        seconds: At most, for all the calls together; two rounds are always made.
    """
    if not calls:
        return {}
    for call in calls.values():
        call()
        call()
    watch.wait()
    samples: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    began = watch.seconds()
    rounds = 0
    least = watch.least_seconds * len(names)
    while rounds < 2 or watch.seconds() - began < seconds:
        if rounds >= watch.least_rounds and watch.seconds() - began >= least:
            break
        marks = {}
        turn = rounds % len(names)
        for name in names[turn:] + names[:turn]:
            watch.flush()
            start = watch.mark()
            calls[name]()
            marks[name] = (start, watch.mark())
        watch.wait()
        for name, (start, end) in marks.items():
            samples[name].append(watch.between(start, end))
        rounds += 1
    return samples
