"""What a measurement runs on and with, for its record."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from attnscope.profiling.record import Machine

_PACKAGES = ("attnscope", "torch", "triton", "transformers", "numpy")
_DRIVER = Path("/proc/driver/nvidia/version")
_PROCESSORS = Path("/proc/cpuinfo")


def machine_of(device: torch.device) -> Machine:
    """The machine, as seen from a device of it."""
    on_gpu = device.type == "cuda"
    versions = [("python", platform.python_version())]
    versions += [(package, _version(package)) for package in _PACKAGES]
    versions.append(("cuda", torch.version.cuda or "PyTorch was built without it"))
    return Machine(
        device=str(device),
        name=torch.cuda.get_device_name(device) if on_gpu else _processor(_PROCESSORS),
        memory_bytes=_memory_bytes(device),
        threads=torch.get_num_threads(),
        driver=_driver(_DRIVER),
        versions=tuple(versions),
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processor(file: Path) -> str:
    """The processor's name and how many cores the system sees."""
    cores = os.cpu_count() or 1
    lines = (
        file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    )
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(named, platform.machine())}, {cores} core{'s' * (cores > 1)}"


def _driver(file: Path) -> str:
    """The kernel module's version line, which needs no library of NVIDIA's."""
    if not file.is_file():
        return "no NVIDIA driver"
    return file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("NVRM version:").strip()


def _memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
