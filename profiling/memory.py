"""Peak memory of a call, as four numbers that are never mixed.

*allocated* is what tensors hold, by the CUDA allocator's own peak or, on a CPU, by every allocation
counted; *reserved* what PyTorch's allocator keeps for them; *process* and *device* what the driver
or the operating system sees. `allocated` is the one to compare with a prediction.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

import torch

from attnscope.kernels.errors import AttnscopeError
from attnscope.profiling import sources
from attnscope.profiling.measured import Measured
from attnscope.profiling.observed import allocations, begins_ns, observe

Call = Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPeak:
    """The most memory at one moment, in bytes.

    Attributes:
        allocated: In tensors, those that were there before the call included.
        transient: Of `allocated`, what the call took on top of what was there when it began.
        reserved: By PyTorch's caching allocator.
        process: By this process: on the GPU, or its resident set; after the call.
        device: In use on the GPU, or of the machine's memory, by whoever; after the call.
    """

    allocated: Measured
    transient: Measured
    reserved: Measured
    process: Measured
    device: Measured


def peak_memory(
    call: Call, device: torch.device, *, held_bytes: int = 0, setup: Call | None = None
) -> MemoryPeak:
    """Peak memory of one run of a call that was warmed up.

    Args:
        call: Is run once.
        device: Where its tensors are.
        held_bytes: Of tensors that were there before the setup, such as weights; only asked for
            where no allocator tells.
        setup: Makes what the call starts from, such as its cache; no part of what is measured.
    """
    if device.type == "cuda":
        return _cuda_peak(call, device, setup)
    before, transient = counted_peak(call, device, setup=setup)
    process, in_use = _seen(sources.MACHINE, "")
    return MemoryPeak(
        allocated=Measured(held_bytes + before + transient),
        transient=Measured(transient),
        reserved=Measured.missing(f"PyTorch keeps no cache of freed memory on {device.type}"),
        process=process,
        device=in_use,
    )


def counted_peak(call: Call, device: torch.device, *, setup: Call | None = None) -> tuple[int, int]:
    """Bytes that the setup left, and the most that the call held at one moment beyond them.

    Every allocation is counted through the profiler, those inside a kernel included: a dispatch
    mode sees only what operators return, and misses the scratch of fused kernels. Memory that was
    taken before the setup is not seen when it is given back.
    """
    profiler = observe(call, device, memory=True, setup=setup)
    began = begins_ns(profiler)
    steps = allocations(profiler, device)
    before = sum(each.nbytes for each in steps if each.at_ns < began)
    during = (each.nbytes for each in steps if each.at_ns >= began)
    return before, max(accumulate(during, initial=0))


def source_of(device: torch.device) -> tuple[str, str]:
    """The source that watches a device, and its target in the source's terms; see `sources`."""
    if device.type != "cuda":
        return sources.MACHINE, ""
    return sources.NVML, f"GPU-{torch.cuda.get_device_properties(device).uuid}"


def _cuda_peak(call: Call, device: torch.device, setup: Call | None) -> MemoryPeak:
    if setup is not None:
        setup()
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    allocated = torch.cuda.max_memory_allocated(device)
    free, total = torch.cuda.mem_get_info(device)
    process, _ = _seen(*source_of(device))
    return MemoryPeak(
        allocated=Measured(allocated),
        transient=Measured(allocated - before),
        reserved=Measured(torch.cuda.max_memory_reserved(device)),
        process=process,
        device=Measured(total - free),
    )


def _seen(source: str, target: str) -> tuple[Measured, Measured]:
    """Bytes of this process and of the device, as the driver or the system sees them now."""
    try:
        opened = sources.open_source(source, target, os.getpid())
    except AttnscopeError as error:
        return Measured.missing(str(error)), Measured.missing(str(error))
    sample = opened.read()
    process, device = (
        Measured(value) if value is not None else Measured.missing(opened.missing[name])
        for name, value in (
            ("process_bytes", sample.process_bytes),
            ("device_bytes", sample.device_bytes),
        )
    )
    return process, device
