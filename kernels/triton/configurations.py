"""How the flash kernels cut a call, as data: chosen by shape, dtype and device. Imports no Triton.

The forward kernels' are in `tuned.toml`, the gradients' below.
"""

from dataclasses import dataclass, replace

import torch

from attnscope.kernels.triton.tuned import Kernel, Rule, Tuned, shipped_entries

Capability = tuple[int, int]
"""CUDA compute capability, (9, 0) for Hopper."""

_AMPERE: tuple[Capability, ...] = ((8, 0), (8, 7))
"""With 163 KiB of shared memory a block; the others of that generation and of Ada's have 99."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class HopperConfig(FlashConfig):
    """Of the kernel for Hopper.

    Attributes:
        specialized: Whether copies and products have warps of their own; takes 4 warps, one loop
            and so no padding.
        persistent: Whether there is a program a multiprocessor, or one a block of queries.
    """

    specialized: bool
    persistent: bool


def block_width(dim: int) -> int:
    """The width of a tile for heads of this width: a power of 2 that a matrix unit takes."""
    return max(1 << (dim - 1).bit_length(), 16)


def two_widths(dim: int) -> tuple[int, int]:
    """The widths of the two tiles that heads of this width are cut into; the second may be 0.

    80 is 64 + 16 and 192 is 128 + 64, where one tile would be 128 and 256 wide.
    """
    whole = block_width(dim)
    rest = block_width(max(dim - whole // 2, 1))
    return (whole // 2, rest) if whole > 64 and rest < whole // 2 else (whole, 0)


def capability_of(device: torch.device) -> Capability:
    """The device's compute capability; `PORTABLE` where there is none."""
    if device.type != "cuda" or torch.version.hip is not None:
        return PORTABLE
    return torch.cuda.get_device_capability(device)


def forward_config(
    head_dim: int, dtype: torch.dtype, capability: Capability, *, bounded_before: bool = False
) -> FlashConfig:
    """The forward kernel's configuration.

    Args:
        head_dim: The wider of keys and values.
        dtype: float32, float16 or bfloat16.
        capability: Of the device.
        bounded_before: Whether the keys end somewhere before the query, as in a window: one loop
            more, and registers that it takes.
    """
    rule = "window" if bounded_before else "causal"
    for entry in shipped_entries():
        if entry.fits("portable", sum(two_widths(head_dim)), dtype, capability, rule):
            return flash_config(entry)
    raise AssertionError(f"tuned.toml has no entry for {dtype}, {head_dim} wide, on {capability}")


def kernel_entry(
    kernel: Kernel, head_dim: int, dtype: torch.dtype, capability: Capability, rule: Rule
) -> Tuned | None:
    """A kernel's entry for such calls, None where it has none; arguments as `forward_config`."""
    for entry in shipped_entries():
        if entry.fits(kernel, block_width(head_dim), dtype, capability, rule):
            return entry
    return None


def flash_config(entry: Tuned) -> FlashConfig:
    """An entry as the portable kernel and the one in Gluon take it."""
    queries, keys = entry.tiles
    return FlashConfig(
        block_queries=queries,
        block_keys=keys,
        num_warps=entry.warps,
        num_stages=entry.stages,
    )


def hopper_config(entry: Tuned) -> HopperConfig:
    """An entry as the kernel for Hopper takes it."""
    queries, keys = entry.tiles
    return HopperConfig(
        block_queries=queries,
        block_keys=keys,
        num_warps=entry.warps,
        num_stages=entry.stages,
        specialized=entry.specialized,
        persistent=entry.persistent,
    )


def query_gradient_config(head_dim: int, dtype: torch.dtype, capability: Capability) -> FlashConfig:
    """The configuration of the kernel for the queries' gradient; arguments as `forward_config`."""
    width = block_width(head_dim)
    if dtype == torch.float32:
        return _config(_FLOAT32_QUERY_GRADIENT, width)
    if capability[0] in (9, 10):
        return _config(_HOPPER_QUERY_GRADIENT, width)
    table = _AMPERE_QUERY_GRADIENT if capability in _AMPERE else _SMALL_QUERY_GRADIENT
    return _config(table, width)


def key_gradient_config(head_dim: int, dtype: torch.dtype, capability: Capability) -> FlashConfig:
    """The configuration of the kernel for the keys' and values' gradients; the same arguments."""
    width = block_width(head_dim)
    if dtype == torch.float32:
        return _config(_FLOAT32_KEY_GRADIENT, width)
    if capability[0] in (9, 10):
        return _config(_HOPPER_KEY_GRADIENT, width)
    return _config(_AMPERE_KEY_GRADIENT if capability in _AMPERE else _SMALL_KEY_GRADIENT, width)


def map_config(head_dim: int, dtype: torch.dtype, capability: Capability) -> FlashConfig:
    """The configuration of the kernels of maps, which read no values; arguments as `forward_config`."""
    if dtype == torch.float32:
        return _config(_FLOAT32_MAP, block_width(head_dim))
    table = _HOPPER_MAP if capability[0] in (9, 10) else _MAP
    return _config(table, block_width(head_dim))


def top_config(head_dim: int, dtype: torch.dtype, capability: Capability) -> FlashConfig:
    """That of the kernel for top keys: fewer queries a thread, for it holds 64 bits a pair."""
    config = map_config(head_dim, dtype, capability)
    return replace(config, block_queries=min(config.block_queries, 64), num_warps=8)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShippedConfig:
    """The configurations that ship for one kind of call; each compiles without a GPU.

    Attributes:
        head_dim: Of keys and values.
        dtype: Of q, k and v.
        capability: Of the device.
        forward: Of `flash_forward`, its `config`.
        query_gradient: Of `flash_backward`, its `query_config`.
        key_gradient: Of the same, its `key_config`.
    """

    head_dim: int
    dtype: torch.dtype
    capability: Capability
    forward: FlashConfig
    query_gradient: FlashConfig
    key_gradient: FlashConfig


def every_configuration() -> tuple[ShippedConfig, ...]:
    """Every choice of the three functions above, for the widths and devices that differ.

    A launch on `meta` tensors of these shapes, with these configurations, is what a GPU compiles.
    """
    return tuple(
        ShippedConfig(
            head_dim=head_dim,
            dtype=dtype,
            capability=capability,
            forward=forward_config(head_dim, dtype, capability),
            query_gradient=query_gradient_config(head_dim, dtype, capability),
            key_gradient=key_gradient_config(head_dim, dtype, capability),
        )
        for capability in ((9, 0), (8, 0), (8, 6))
        for dtype in (torch.bfloat16, torch.float16, torch.float32)
        for head_dim in (64, 128, 256)
    )


def _config(table: dict[int, tuple[int, int, int, int]], width: int) -> FlashConfig:
    queries, keys, warps, stages = table[min(each for each in table if each >= width)]
    return FlashConfig(block_queries=queries, block_keys=keys, num_warps=warps, num_stages=stages)


# By width, or the next one listed: queries, keys, warps, stages. Chosen on paper, as the largest tried that
# spill no registers when compiled, or next to none (`BELOW_STANDARD` of `shipped` names those); not timed
# on a device yet.
_HOPPER_QUERY_GRADIENT = {64: (128, 64, 8, 2), 128: (128, 32, 8, 2), 256: (128, 16, 8, 2)}
_HOPPER_KEY_GRADIENT = {64: (64, 128, 8, 1), 128: (32, 64, 8, 2), 256: (32, 32, 8, 1)}
_AMPERE_QUERY_GRADIENT = {64: (128, 32, 8, 2), 128: (64, 64, 8, 2), 256: (64, 16, 8, 2)}
_SMALL_QUERY_GRADIENT = {64: (128, 32, 8, 2), 128: (64, 32, 8, 2), 256: (32, 16, 8, 2)}
_AMPERE_KEY_GRADIENT = {64: (32, 32, 4, 2), 128: (32, 32, 8, 1), 256: (16, 32, 8, 1)}
_SMALL_KEY_GRADIENT = {64: (32, 32, 8, 2), 128: (32, 32, 8, 1), 256: (16, 32, 8, 1)}
_FLOAT32_QUERY_GRADIENT = {64: (32, 32, 8, 1), 128: (16, 16, 8, 1), 256: (16, 16, 8, 1)}
_FLOAT32_KEY_GRADIENT = {64: (16, 32, 8, 1), 128: (16, 16, 8, 1), 256: (16, 16, 8, 1)}
_HOPPER_MAP = {64: (128, 64, 8, 3), 128: (128, 64, 8, 3), 256: (128, 64, 8, 2)}
_MAP = {64: (64, 64, 4, 3), 128: (64, 64, 4, 3), 256: (64, 64, 8, 2)}
_FLOAT32_MAP = {64: (64, 16, 8, 2), 128: (32, 16, 8, 2), 256: (32, 16, 8, 1)}
