"""PyTorch's profiler as this room reads it: operators, kernels, and every byte taken or given back.

A run under the profiler is slower than one without; nothing here is a latency.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile, record_function

from attnscope.kernels.errors import InvalidCall

_BEGIN = "attnscope::begin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """Memory taken or given back.

    Attributes:
        at_ns: When, by the profiler's clock.
        nbytes: Below 0 when it is given back.
        address: Of the block.
        scopes: Names of the operators and marked scopes it happened in, outermost first.
    """

    at_ns: int
    nbytes: int
    address: int
    scopes: tuple[str, ...]


def observe(
    call: Callable[[], object],
    device: torch.device,
    *,
    memory: bool = False,
    setup: Callable[[], object] | None = None,
) -> Any:
    """Runs a call once under the profiler.

    Args:
        call: Is waited for.
        device: Whose kernels are recorded beside the operators.
        memory: Whether allocations are recorded.
        setup: Runs under the profiler before the call, and is no part of it; see `begins_ns`. The
            profiler sees memory given back on a CPU only where it saw it taken.

    Returns:
        The finished `torch.profiler.profile`.

    Raises:
        InvalidCall: A profiler is running already.
    """
    if torch.autograd.profiler._is_profiler_enabled:
        raise InvalidCall(
            "PyTorch's profiler is running already in this process.",
            "End it first; two cannot run at once.",
        )
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities, profile_memory=memory) as profiler:
        if setup is not None:
            setup()
        with record_function(_BEGIN):
            pass
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return profiler


def allocations(profiler: Any, device: torch.device) -> list[Allocation]:
    """Every allocation on a device of a run that was observed with its memory, in order.

    Memory that is given back without having been seen to be taken is left out: what an earlier
    observed run took, and nothing else that is older, the profiler would tell of.
    """
    found = []
    for event, scopes in _events(profiler):
        if event.tag != _EventType.Allocation:
            continue
        fields = event.extra_fields
        if fields.device.type == device.type and fields.ptr:
            found.append(
                Allocation(
                    at_ns=event.start_time_ns,
                    nbytes=fields.alloc_size,
                    address=fields.ptr,
                    scopes=scopes,
                )
            )
    return list(_taken_here(sorted(found, key=lambda each: each.at_ns)))


def _taken_here(steps: list[Allocation]) -> Iterator[Allocation]:
    held: set[int] = set()
    for step in steps:
        if step.nbytes > 0:
            held.add(step.address)
            yield step
        elif step.address in held:
            held.remove(step.address)
            yield step


def begins_ns(profiler: Any) -> int:
    """When the observed call began, after its setup."""
    return scope_times(profiler, _BEGIN)[0][0]


def scope_times(profiler: Any, name: str) -> list[tuple[int, int]]:
    """When scopes of that name began and ended, in nanoseconds of the profiler's clock."""
    return sorted(
        (event.start_time_ns, event.end_time_ns)
        for event, _ in _events(profiler)
        if event.tag == _EventType.TorchOp and event.name == name
    )


def _events(profiler: Any) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Every event of the profiler's tree with the names of those it lies in."""
    roots = profiler.profiler.kineto_results.experimental_event_tree()
    waiting = [(root, ()) for root in reversed(roots)]
    while waiting:
        event, scopes = waiting.pop()
        yield event, scopes
        inner = (*scopes, event.name)
        waiting += [(child, inner) for child in reversed(event.children)]
