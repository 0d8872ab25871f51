"""A GPU that is not there: what its driver would say, and what it would refuse to."""

import os
import time
from types import SimpleNamespace

HANDLE = object()
POWER_MW = 300_000


class NVMLError(Exception):
    pass


def nvmlInit() -> None:
    if os.environ.get("FAKE_NVML") == "down":
        raise NVMLError("Driver Not Loaded")


def nvmlDeviceGetHandleByUUID(uuid: str) -> object:
    if uuid != "GPU-fake":
        raise NVMLError("Not Found")
    return HANDLE


def nvmlDeviceGetHandleByIndex(index: int) -> object:
    assert index == 0
    return HANDLE


def nvmlDeviceGetMemoryInfo(handle: object) -> SimpleNamespace:
    assert handle is HANDLE
    return SimpleNamespace(used=7 * 2**30)


def nvmlDeviceGetUtilizationRates(handle: object) -> SimpleNamespace:
    assert handle is HANDLE
    return SimpleNamespace(gpu=42)


def nvmlDeviceGetPowerUsage(handle: object) -> int:
    assert handle is HANDLE
    return POWER_MW


def nvmlDeviceGetTotalEnergyConsumption(handle: object) -> int:
    assert handle is HANDLE
    if os.environ.get("FAKE_NVML") == "old":
        raise NVMLError("Not Supported")
    return int(time.monotonic() * POWER_MW)


def nvmlDeviceGetTemperature(handle: object, sensor: int) -> int:
    assert (handle, sensor) == (HANDLE, 0)
    return 61


def nvmlDeviceGetClockInfo(handle: object, kind: int) -> int:
    assert handle is HANDLE
    return {1: 1980, 2: 2619}[kind]


def nvmlDeviceGetCurrentClocksEventReasons(handle: object) -> int:
    assert handle is HANDLE
    return 0x1 | 0x4 | 0x40


def nvmlDeviceGetComputeRunningProcesses(handle: object) -> list[SimpleNamespace]:
    assert handle is HANDLE
    ours = int(os.environ.get("FAKE_NVML_PID", "0"))
    return [
        SimpleNamespace(pid=ours, usedGpuMemory=5 * 2**30),
        SimpleNamespace(pid=1, usedGpuMemory=None),
    ]
