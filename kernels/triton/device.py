"""Where compiled kernels can run: what this process and this device offer. Imports no Triton."""

import importlib.util
import os

import torch


def interpreted() -> bool:
    """Whether Triton runs its kernels in its interpreter (set before Triton is imported)."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")


def missing(device: torch.device) -> str | None:
    """What keeps a Triton kernel from running on this device, in words, or None when it runs."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if device.type == "cuda" or (device.type == "cpu" and interpreted()):
        return None
    return f"compiled kernels need an NVIDIA or AMD GPU, and the tensors are on {device}"


def is_hopper(device: torch.device) -> bool:
    """Whether the device is of NVIDIA's compute capability 9."""
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability(device)[0] == 9


def multiprocessors(device: torch.device) -> int:
    """How many multiprocessors the device has; 1 for a CPU, where kernels are interpreted."""
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count
