"""How many bytes may still be taken on a device, asked before anything large is loaded."""

from pathlib import Path

import torch

_CGROUP = Path("/sys/fs/cgroup")


def available_bytes(device: torch.device) -> int:
    """Bytes that can still be allocated on a device.

    On CUDA what the driver says is free, and what PyTorch holds back without using it. Elsewhere
    the machine's available memory, or what the container's limit leaves where that is less: inside
    a container the machine's figure is too high.

    Args:
        device: Where the tensors will live.
    """
    if device.type == "cuda":
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + idle
    # Here and not above: on a machine with a GPU it need not be installed.
    import psutil

    machine = int(psutil.virtual_memory().available)
    container = _container_bytes(_CGROUP)
    return machine if container is None else min(machine, container)


def _container_bytes(folder: Path) -> int | None:
    """What the memory limit of a version 2 control group leaves; None where there is no limit."""
    limit = _number(folder / "memory.max")
    used = _number(folder / "memory.current")
    if limit is None or used is None:
        return None
    # Cached file pages count as used and are given back under pressure.
    return max(0, limit - used + _inactive_file_bytes(folder / "memory.stat"))


def _number(file: Path) -> int | None:
    if not file.is_file():
        return None
    text = file.read_text(encoding="ascii").strip()
    return int(text) if text.isdigit() else None


def _inactive_file_bytes(file: Path) -> int:
    if not file.is_file():
        return 0
    lines = (line.split() for line in file.read_text(encoding="ascii").splitlines())
    return next((int(parts[1]) for parts in lines if parts[0] == "inactive_file"), 0)


def in_words(count: int) -> str:
    """A number of bytes for a message: `1.5 GiB`, `820 KiB`."""
    value = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024:
            return (
                f"{value:.0f} {unit}" if unit == "bytes" or value >= 100 else f"{value:.1f} {unit}"
            )
        value /= 1024
    return f"{value:.1f} TiB"
