"""What every section of the GPU benchmark is given, and what every comparison does.

A section is a function of a `Bench` that yields records, one a call of its plan: the answers are
judged first, and only those that are right are timed.
"""

import math
import statistics
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any

import torch

from attnscope.kernels.backends.backend import Backend, attention_flops, io_bytes
from attnscope.kernels.call import AttentionCall
from attnscope.kernels.registry import BACKENDS
from benchmarks.gpu.ceilings import Ceilings
from benchmarks.gpu.contenders import OURS, UNTIMED, Contender, contender, judged, takers
from benchmarks.gpu.peers import peers_of
from benchmarks.gpu.problem import Verdict, problem, truth
from benchmarks.gpu.stopwatch import Call, Stopwatch, alternate
from benchmarks.results import failure, spread
from tests.inputs import Inputs

Record = dict[str, Any]

SHORT_MS = 0.05
"""Calls shorter than this are timed as graphs: what the host adds would be a part of them."""

_CLOCKS = ("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What a section works with.

    Attributes:
        device: Where everything runs.
        watch: How time is taken.
        ceilings: Of the device, measured in this run.
        deadline: Of the host's clock in `watch`; a call that would begin later is not run.
        toy: Whether plans are tiny, for a run without a GPU.
        backends: Who may take part.
    """

    device: torch.device
    watch: Stopwatch
    ceilings: Ceilings
    deadline: float
    toy: bool = False
    backends: tuple[Backend, ...] = BACKENDS

    @property
    def seconds_left(self) -> float:
        """Until the deadline; below 0 after it."""
        return self.deadline - self.watch.seconds()


Section = Callable[[Bench], Iterator[Record]]
Judge = Callable[[Contender], Verdict | str]
Further = Callable[[Inputs], tuple[list[Contender], dict[str, str]]]
"""Who answers a problem besides the backends, and why others do not."""


def described(call: AttentionCall) -> Record:
    """The call as data: its sizes, and its pattern by key and parameters."""
    pattern = {"key": call.pattern.key, **call.pattern.parameters}
    return {each.name: getattr(call, each.name) for each in fields(call)} | {"pattern": pattern}


def clocks() -> Record:
    """The device's clocks (MHz), power (W) and temperature (°C) now; empty where nobody says."""
    query = [
        "nvidia-smi",
        f"--query-gpu={','.join(_CLOCKS)}",
        "--format=csv,noheader,nounits",
        "--id=0",
    ]
    try:
        told = subprocess.run(query, capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(_CLOCKS, (value.strip() for value in told.split(",")), strict=True))


def compared(
    bench: Bench,
    calls: Iterable[AttentionCall],
    *,
    timed: bool,
    further: Further = lambda _: ([], {}),
) -> Iterator[Record]:
    """One record a call: every backend's verdict, and if `timed` the times of those that are right.

    Args:
        bench: Where and by which clock.
        calls: The plan.
        timed: Whether what is right is timed.
        further: Who takes part besides the backends.
    """

    def one(call: AttentionCall, deadline: float) -> Record:
        return _compared(bench, call, further, deadline=deadline if timed else None)

    return planned(bench, calls, one)


def planned(
    bench: Bench, calls: Iterable[AttentionCall], one: Callable[[AttentionCall, float], Record]
) -> Iterator[Record]:
    """One record a call, in the plan's order.

    The seconds left are shared among the calls left; a call that finds none is recorded as not run.

    Args:
        bench: Where and by which clock.
        calls: The plan.
        one: Makes the record of a call, by its own deadline of the host's clock.
    """
    plan = list(calls)
    for place, call in enumerate(plan):
        share = bench.seconds_left / (len(plan) - place)
        record: Record = {"call": described(call), "name": named(call)}
        if share <= 0:
            yield {**record, "not_run": "out of time"}
            continue
        yield {**record, **one(call, bench.watch.seconds() + share)}
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()


def named(call: AttentionCall) -> str:
    """The call in a line, for people."""
    heads = f"{call.query_heads}/{call.kv_heads}" if call.group_size > 1 else f"{call.query_heads}"
    width = f"{call.head_dim}" + (f"/{call.value_dim}" * (call.value_dim != call.head_dim))
    length = f"{call.query_length}" + (
        f" over {call.key_length}" * (call.key_length != call.query_length)
    )
    marks = [
        f"softcap {call.softcap:g}" if call.softcap else "",
        "sinks" if call.has_sinks else "",
        "padding" if call.has_padding else "",
        "bias by distance" if call.has_distance_bias else "",
    ]
    named = f"{call.pattern.title}, {call.dtype}, B{call.batch} H{heads} N{length} D{width}"
    return ", ".join([named, *filter(None, marks)])


def contest(
    bench: Bench,
    call: AttentionCall,
    contenders: Iterable[Contender],
    judge: Judge,
    *,
    deadline: float | None,
    passes: float = 1,
) -> Record:
    """The verdict on every contender, and the times of those that are right.

    Whoever would begin after the section's own deadline is not tried: the first answer of each
    compiles, and that is no reason for other sections to go without.

    Args:
        bench: Where and by which clock.
        call: What all of them answer.
        contenders: Who takes part.
        judge: The verdict on one, or in words why there is none.
        deadline: Of the host's clock; None to time nothing.
        passes: How many times a forward pass's FLOP the work is.

    Returns:
        By `backends`, what each did; by `not_tried`, for whom there was no time; and how ours
        compare with their best peer.
    """
    found: dict[str, Record] = {}
    right: dict[str, Call] = {}
    untried: list[str] = []
    for candidate in contenders:
        if bench.seconds_left <= 0:
            untried.append(candidate.name)
            continue
        said = judge(candidate)
        wrong = {"right": False, "reason": said}
        found[candidate.name] = wrong if isinstance(said, str) else asdict(said)
        if found[candidate.name]["right"]:
            right[candidate.name] = candidate.run
    verdicts: Record = {"backends": found, **({"not_tried": untried} if untried else {})}
    if deadline is None:
        return verdicts
    _as_graphs(bench.watch, right, found)
    samples = alternate(right, bench.watch, seconds=max(deadline - bench.watch.seconds(), 1.0))
    for name, taken in samples.items():
        found[name] |= _rates(bench, call, taken, passes)
    return {
        **verdicts,
        "timed_by": bench.watch.kind,
        "clocks": clocks(),
        # The best of some is not the best peer.
        **({} if untried else _ratio(samples)),
    }


def _as_graphs(watch: Stopwatch, right: dict[str, Call], found: dict[str, Record]) -> None:
    """Puts a graph in the place of each call, where one of them is short and there are graphs.

    What cannot be a graph stays as it is, and its record says why.
    """
    if watch.graph is None or not right:
        return
    glance = alternate(right, replace(watch, least_rounds=2, least_seconds=0), seconds=0)
    if min(map(min, glance.values())) >= SHORT_MS:
        return
    for name, call in right.items():
        try:
            right[name] = watch.graph(call)
            found[name]["graph"] = "yes"
        except Exception as error:  # noqa: BLE001 - whatever kept it from being one is told
            found[name]["graph"] = failure(error)


def _compared(
    bench: Bench, call: AttentionCall, further: Further, *, deadline: float | None
) -> Record:
    asked = problem(call, bench.device)
    # The truth is exact attention's; an approximation has one of its own.
    exact = [each for each in bench.backends if each.exact]
    among = [each for each in exact if deadline is None or each.name not in UNTIMED]
    taken, refused = takers(call, bench.device, among)
    peers, absent = peers_of(asked)
    others, left_out = further(asked)
    contenders = [*(contender(backend, asked) for backend in taken), *peers, *others]
    judge = partial(judged, asked=asked, true=truth(asked))
    return {
        "refused": refused | absent | left_out,
        **contest(bench, call, contenders, judge, deadline=deadline),
    }


def _rates(bench: Bench, call: AttentionCall, samples: list[float], passes: float) -> Record:
    """What a contender did a second, and what share that is of the ceilings."""
    seconds = statistics.median(samples) * 1e-3
    flops = passes * attention_flops(call, call.kept_pairs) / seconds
    return {
        "ms": spread(samples),
        "tflops": flops / 1e12,
        "of_matmul": flops / bench.ceilings.matmul_flops,
        "of_copy": sum(io_bytes(call)) / seconds / bench.ceilings.copy_bytes,
        "samples_ms": [round(each, 4) for each in samples],
    }


def _ratio(samples: dict[str, list[float]]) -> Record:
    """Our best against the best of the peers; nothing where one side is missing."""
    medians = {name: statistics.median(taken) for name, taken in samples.items()}
    ours = {name: taken for name, taken in medians.items() if name.startswith(OURS)}
    peers = {name: taken for name, taken in medians.items() if name not in ours}
    if not ours or not peers:
        return {}
    best, peer = min(ours, key=ours.__getitem__), min(peers, key=peers.__getitem__)
    return {"ours": best, "best_peer": peer, "speed_ratio": peers[peer] / ours[best]}


def geometric_mean(values: Iterable[float]) -> float | None:
    """The geometric mean of values above 0; None of none."""
    logarithms = [math.log(value) for value in values if value > 0]
    return math.exp(statistics.fmean(logarithms)) if logarithms else None
