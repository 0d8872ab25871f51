"""What ran: every kernel by name with its time, the attention path, and a trace that opens in Perfetto.

A traced run is slower than one that is not: its times say what share is whose, and are no latency.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch._C._autograd import DeviceType

from attnscope.kernels.errors import InvalidCall
from attnscope.profiling.attention_path import Executed, executed
from attnscope.profiling.memory_timeline import ATTENTION_SCOPE
from attnscope.profiling.observed import observe

_OURS = "attnscope::"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One kernel, or on a CPU one operator, over the whole run.

    Attributes:
        name: As the profiler tells it.
        seconds: In it, not in what it called.
        count: How often it ran.
        share: Of the seconds of all kernels.
    """

    name: str
    seconds: float
    count: int
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One traced run.

    Attributes:
        kernels: Those of most time first.
        attention: The attention path that ran; None where no backend was named.
    """

    kernels: tuple[Kernel, ...]
    attention: Executed | None


def trace(
    call: Callable[[], object],
    device: torch.device,
    *,
    asked: str | None = None,
    out: Path | None = None,
) -> Trace:
    """Traces one run of a call that was warmed up.

    Args:
        call: Is run once.
        device: Whose kernels are traced.
        asked: The attention backend that was asked for. Attention calls are those made inside
            `memory_timeline.attention_scope`; where there is none, the whole run is one.
        out: Where the Chrome trace is written, `….json` or `….json.gz`: it opens in Perfetto.

    Raises:
        InvalidCall: `out` is no such name, or a profiler is running already.
    """
    if out is not None and not out.name.endswith((".json", ".json.gz")):
        raise InvalidCall(f"A trace is written as .json or .json.gz, not as {out.name}.")
    profiler = observe(call, device)
    if out is not None:
        profiler.export_chrome_trace(str(out))
    events = [event for event in profiler.events() if event.name != "[memory]"]
    kernels = _kernels(events, device)
    attention = None if asked is None else _attention(asked, events, kernels, device)
    return Trace(kernels=kernels, attention=attention)


def write_memory_snapshot(call: Callable[[], object], device: torch.device, out: Path) -> None:
    """Records every allocation of one run for PyTorch's own viewer (pytorch.org/memory_viz).

    The file is a pickle: open such a file only if you wrote it.

    Raises:
        InvalidCall: The device is no GPU: PyTorch keeps this history for CUDA only.
    """
    if device.type != "cuda":
        raise InvalidCall(
            f"PyTorch keeps a history of its memory on CUDA only, and this is {device}.",
            "Use the memory timeline of the record, which is made on every device.",
        )
    torch.cuda.memory._record_memory_history()
    try:
        call()
        torch.cuda.synchronize(device)
        torch.cuda.memory._dump_snapshot(str(out))
    finally:
        torch.cuda.memory._record_memory_history(enabled=None)


def _kernels(events: list[Any], device: torch.device) -> tuple[Kernel, ...]:
    on_gpu = device.type == "cuda"
    seconds: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for event in events:
        if (event.device_type == DeviceType.CUDA) != on_gpu or _is_mark(event, on_gpu):
            continue
        taken = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        seconds[event.name] += taken / 1e6
        counts[event.name] += 1
    total = sum(seconds.values()) or 1.0
    found = [
        Kernel(name=name, seconds=taken, count=counts[name], share=taken / total)
        for name, taken in seconds.items()
    ]
    return tuple(sorted(found, key=lambda each: each.seconds, reverse=True))


def _is_mark(event: Any, on_gpu: bool) -> bool:
    """Whether it is a scope that somebody marked; on a GPU it would count its kernels twice."""
    return event.name.startswith(_OURS) or (on_gpu and event.is_user_annotation)


def _attention(
    asked: str, events: list[Any], kernels: tuple[Kernel, ...], device: torch.device
) -> Executed:
    scopes = [
        event
        for event in events
        if event.name == ATTENTION_SCOPE and event.device_type == DeviceType.CPU
    ]
    hosted = [event for event in events if event.device_type == DeviceType.CPU]
    inside = [_within(scope) for scope in scopes] or [hosted]
    if device.type == "cuda":
        # A Triton kernel is launched by no operator, so nothing ties it to a scope.
        loose = {kernel.name for kernel in kernels} - _launched(hosted)
        launched = [_launched(each) | loose for each in inside]
        ran = set().union(*launched)
    else:
        launched = [set[str]() for _ in inside]
        ran = {event.name for each in inside for event in each}
    return executed(
        asked,
        [
            ([event.name for event in each], names)
            for each, names in zip(inside, launched, strict=True)
        ],
        [kernel.name for kernel in kernels if kernel.name in ran],
    )


def _launched(events: list[Any]) -> set[str]:
    """Names of the kernels that operators launched."""
    return {kernel.name for event in events for kernel in event.kernels}


def _within(scope: Any) -> list[Any]:
    """Every event below a scope."""
    found, waiting = [], list(scope.cpu_children)
    while waiting:
        event = waiting.pop()
        found.append(event)
        waiting += event.cpu_children
    return found
