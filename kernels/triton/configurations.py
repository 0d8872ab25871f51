"""How the flash kernels cut a call, as data: chosen by shape, dtype and device. Imports no Triton."""

from dataclasses import dataclass

import torch

Capability = tuple[int, int]
"""CUDA compute capability, (9, 0) for Hopper."""

PORTABLE: Capability = (8, 0)
"""What a device that is not NVIDIA's, or a CPU that interprets, is configured as."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlashConfig:
    """Tiles and resources of one flash kernel: constants of its compilation.

    Attributes:
        block_queries: Queries of a tile; a power of 2, 16 at least.
        block_keys: Keys of a tile; the same.
        num_warps: Of a program.
        num_stages: Tiles in flight between device memory and shared memory.
    """

    block_queries: int
    block_keys: int
    num_warps: int
    num_stages: int


def block_width(dim: int) -> int:
    """The width of a tile for heads of this width: a power of 2 that a matrix unit takes."""
    return max(1 << (dim - 1).bit_length(), 16)


def capability_of(device: torch.device) -> Capability:
    """The device's compute capability; `PORTABLE` where there is none."""
    if device.type != "cuda" or torch.version.hip is not None:
        return PORTABLE
    return torch.cuda.get_device_capability(device)


def forward_config(head_dim: int, dtype: torch.dtype, capability: Capability) -> FlashConfig:
    """The forward kernel's configuration.

    Args:
        head_dim: The wider of keys and values.
        dtype: float32, float16 or bfloat16.
        capability: Of the device.
    """
    width = block_width(head_dim)
    if dtype == torch.float32:
        return _config(_FLOAT32_FORWARD, width)
    has_large_shared_memory = capability in ((8, 0), (8, 7)) or capability[0] in (9, 10)
    if capability[0] in (9, 10):
        return _config(_HOPPER_FORWARD, width)
    return _config(_AMPERE_FORWARD if has_large_shared_memory else _SMALL_FORWARD, width)


def _config(table: dict[int, tuple[int, int, int, int]], width: int) -> FlashConfig:
    queries, keys, warps, stages = table[max(width, 64)]
    return FlashConfig(block_queries=queries, block_keys=keys, num_warps=warps, num_stages=stages)


# By width: queries, keys, warps, stages.
_HOPPER_FORWARD = {64: (128, 128, 8, 3), 128: (128, 128, 8, 2), 256: (128, 64, 8, 2)}
_AMPERE_FORWARD = {64: (128, 64, 4, 3), 128: (128, 64, 8, 3), 256: (128, 32, 8, 2)}
_SMALL_FORWARD = {64: (128, 64, 4, 2), 128: (64, 64, 4, 2), 256: (64, 32, 4, 2)}
_FLOAT32_FORWARD = {64: (64, 32, 4, 2), 128: (32, 32, 4, 2), 256: (16, 32, 4, 1)}
