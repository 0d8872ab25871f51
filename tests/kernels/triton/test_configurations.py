import pytest
import torch

from attnscope.kernels.triton.configurations import (
    PORTABLE,
    block_width,
    capability_of,
    every_configuration,
    forward_config,
)

SHARED_KIB = {(9, 0): 227, (8, 0): 163, (8, 6): 99}


@pytest.mark.parametrize(
    ("dim", "width"), [(1, 16), (16, 16), (17, 32), (80, 128), (128, 128), (192, 256)]
)
def test_a_tile_is_as_wide_as_the_next_power_of_two(dim: int, width: int) -> None:
    assert block_width(dim) == width


def test_a_cpu_is_configured_as_the_portable_device() -> None:
    assert capability_of(torch.device("cpu")) == PORTABLE
    assert PORTABLE in SHARED_KIB


@pytest.mark.parametrize("shipped", every_configuration(), ids=str)
def test_the_tiles_in_flight_fit_the_shared_memory(shipped) -> None:
    config, width = shipped.config, block_width(shipped.head_dim)
    rows = config.block_queries + 2 * config.num_stages * config.block_keys
    assert rows * width * shipped.dtype.itemsize <= SHARED_KIB[shipped.capability] * 1024
    assert shipped.config == forward_config(shipped.head_dim, shipped.dtype, shipped.capability)


def test_narrow_heads_and_unknown_devices_have_a_configuration_too() -> None:
    for capability in ((7, 5), (8, 9), (10, 0), (12, 0)):
        for dim in (1, 16, 80, 192):
            config = forward_config(dim, torch.float16, capability)
            assert config.block_queries >= 16
            assert config.block_keys >= 16
