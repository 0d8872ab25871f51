"""What a device and a machine say about themselves: one moment of it, or why they do not say.

Only the standard library is imported here, so that a process that samples starts at once; NVML and
psutil are asked for when a source is opened, and what is missing is named.
"""

import importlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import ModuleType
from typing import Any, Protocol

from attnscope.kernels.errors import InvalidCall


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One moment. None is "not available", and the source says why.

    Attributes:
        at_s: `time.monotonic`, which all processes of a machine share.
        device_bytes: Memory in use on the device, whoever uses it; without a GPU, on the machine.
        process_bytes: Of it, that of the watched process; without a GPU, its resident set.
        utilisation: Share of the time the device was busy, 0 to 1; without a GPU, of all cores.
        power_w: Watts drawn.
        energy_j: Joules drawn since the driver was loaded.
        temperature_c: Degrees Celsius.
        clock_mhz: Of the multiprocessors.
        memory_clock_mhz: Of the memory.
        throttled: What holds the clocks down, in words; empty when nothing does.
        others: Other processes that compute on the device.
        load: Runnable processes of the machine, averaged over a minute.
    """

    at_s: float
    device_bytes: int | None = None
    process_bytes: int | None = None
    utilisation: float | None = None
    power_w: float | None = None
    energy_j: float | None = None
    temperature_c: float | None = None
    clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    throttled: tuple[str, ...] | None = None
    others: int | None = None
    load: float | None = None


FIGURES = tuple(each.name for each in fields(Sample) if each.name != "at_s")
NVML, MACHINE = "attnscope.profiling.sources:nvml", "attnscope.profiling.sources:machine"

THROTTLES = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "thermal slowdown (driver)",
    0x40: "thermal slowdown (hardware)",
    0x80: "power brake",
}
"""NVML's clocks event reasons that hold clocks down (nvml.h); idle and user-set clocks are none."""


class Source(Protocol):
    """What can be asked for a sample.

    Attributes:
        missing: Why a figure is not available, by its name in `Sample`.
    """

    missing: dict[str, str]

    def read(self) -> Sample:
        """One moment."""
        ...


def open_source(name: str, target: str, pid: int) -> Source:
    """Opens a source by name.

    Args:
        name: `module:function`, such as `NVML` and `MACHINE`; the function takes the other two.
        target: Which device, in the source's own terms.
        pid: Whose memory `process_bytes` is.

    Raises:
        InvalidCall: There is no such source, or it cannot be opened here.
    """
    module, _, function = name.partition(":")
    try:
        opener: Callable[[str, int], Source] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidCall(f"There is no source {name!r}: {error}.") from error
    return opener(target, pid)


def machine(target: str, pid: int) -> Source:
    """The machine itself, through psutil."""
    del target
    try:
        psutil = importlib.import_module("psutil")
    except ImportError:
        psutil = None
    return _Machine(psutil, pid)


def nvml(target: str, pid: int) -> Source:
    """An NVIDIA GPU, through its driver's library.

    Args:
        target: The GPU's UUID, `GPU-…`, or its number as the driver counts.
        pid: Whose memory `process_bytes` is.

    Raises:
        InvalidCall: nvidia-ml-py is not installed, or the driver does not answer.
    """
    try:
        library = importlib.import_module("pynvml")
    except ImportError as error:
        raise InvalidCall(
            "nvidia-ml-py is not installed, so the GPU's power, clocks and processes are not seen.",
            "Install it: pip install nvidia-ml-py.",
        ) from error
    try:
        library.nvmlInit()
        named = target.isdigit()
        handle = (
            library.nvmlDeviceGetHandleByIndex(int(target))
            if named
            else library.nvmlDeviceGetHandleByUUID(target)
        )
    except library.NVMLError as error:
        raise InvalidCall(
            f"NVIDIA's driver does not answer for the GPU {target!r}: {error}.",
            "Check that nvidia-smi runs here.",
        ) from error
    return _Nvml(library, handle, pid)


class _Machine:
    def __init__(self, psutil: ModuleType | None, pid: int) -> None:
        self._psutil = psutil
        self._process = None if psutil is None else psutil.Process(pid)
        self.missing = dict.fromkeys(FIGURES, "the machine has no meter for it without a GPU")
        del self.missing["load"]
        for name in ("device_bytes", "process_bytes", "utilisation"):
            if psutil is None:
                self.missing[name] = "psutil is not installed"
            else:
                del self.missing[name]
                psutil.cpu_percent()

    def read(self) -> Sample:
        at, load = time.monotonic(), os.getloadavg()[0]
        if self._psutil is None or self._process is None:
            return Sample(at_s=at, load=load)
        memory = self._psutil.virtual_memory()
        return Sample(
            at_s=at,
            device_bytes=memory.total - memory.available,
            process_bytes=self._process.memory_info().rss,
            utilisation=self._psutil.cpu_percent() / 100,
            load=load,
        )


class _Nvml:
    def __init__(self, library: Any, handle: Any, pid: int) -> None:
        self._library, self._handle, self._pid = library, handle, pid
        self.missing: dict[str, str] = {}
        self._readers: Mapping[str, Callable[[], Any]] = {
            "device_bytes": lambda: library.nvmlDeviceGetMemoryInfo(handle).used,
            "utilisation": lambda: library.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
            "power_w": lambda: library.nvmlDeviceGetPowerUsage(handle) / 1e3,
            "energy_j": lambda: library.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3,
            "temperature_c": lambda: float(library.nvmlDeviceGetTemperature(handle, 0)),
            "clock_mhz": lambda: float(library.nvmlDeviceGetClockInfo(handle, 1)),
            "memory_clock_mhz": lambda: float(library.nvmlDeviceGetClockInfo(handle, 2)),
            "throttled": self._throttles,
        }

    def read(self) -> Sample:
        at = time.monotonic()
        found = {name: self._one(name, reader) for name, reader in self._readers.items()}
        mine, others = self._processes()
        return Sample(at_s=at, **found, process_bytes=mine, others=others, load=os.getloadavg()[0])

    def _one(self, name: str, reader: Callable[[], Any]) -> Any:
        """The figure; or None, and the driver's reason is kept, and it is not asked again."""
        if name in self.missing:
            return None
        try:
            return reader()
        except self._library.NVMLError as error:
            self.missing[name] = f"the driver says: {error}"
            return None

    def _throttles(self) -> tuple[str, ...]:
        bits = self._library.nvmlDeviceGetCurrentClocksEventReasons(self._handle)
        return tuple(words for bit, words in THROTTLES.items() if bits & bit)

    def _processes(self) -> tuple[int | None, int | None]:
        """Bytes of the watched process, and how many other processes compute on the GPU."""
        running = self._one(
            "others", lambda: self._library.nvmlDeviceGetComputeRunningProcesses(self._handle)
        )
        if running is None:
            self.missing.setdefault("process_bytes", self.missing["others"])
            return None, None
        mine = [each for each in running if each.pid == self._pid]
        if running and not mine:
            reason = f"the driver lists no process {self._pid}: in a container the numbers differ"
            self.missing.update(process_bytes=reason, others=reason)
            return None, None
        taken = mine[0].usedGpuMemory if mine else 0
        if taken is None:
            self.missing["process_bytes"] = "the driver does not tell it of this process"
        return taken, len(running) - len(mine)
