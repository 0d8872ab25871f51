import pytest
import torch

from attnscope.kernels.triton.configurations import (
    PORTABLE,
    block_width,
    capability_of,
    every_configuration,
    forward_config,
    two_widths,
)

SHARED_KIB = {(9, 0): 227, (8, 0): 163, (8, 6): 99}


@pytest.mark.parametrize(
    ("dim", "width"), [(1, 16), (16, 16), (17, 32), (80, 128), (128, 128), (192, 256)]
)
def test_a_tile_is_as_wide_as_the_next_power_of_two(dim: int, width: int) -> None:
    assert block_width(dim) == width


@pytest.mark.parametrize(
    ("dim", "widths"),
    [
        (1, (16, 0)),
        (40, (64, 0)),
        (64, (64, 0)),
        (72, (64, 16)),
        (80, (64, 16)),
        (96, (64, 32)),
        (112, (128, 0)),
        (128, (128, 0)),
        (160, (128, 32)),
        (192, (128, 64)),
        (200, (256, 0)),
    ],
)
def test_a_head_is_cut_in_two_where_that_is_narrower(dim: int, widths: tuple[int, int]) -> None:
    assert two_widths(dim) == widths
    assert dim <= sum(widths) <= block_width(dim)


def test_a_cpu_is_configured_as_the_portable_device() -> None:
    assert capability_of(torch.device("cpu")) == PORTABLE
    assert PORTABLE in SHARED_KIB


@pytest.mark.parametrize("shipped", every_configuration(), ids=str)
def test_the_tiles_in_flight_fit_the_shared_memory(shipped) -> None:
    width, available = block_width(shipped.head_dim), SHARED_KIB[shipped.capability] * 1024
    tile = width * shipped.dtype.itemsize
    forward, query, key = shipped.forward, shipped.query_gradient, shipped.key_gradient
    # Tiles of keys and values in flight; of queries, one stays (with its gradient, in the backward).
    rows = forward.block_queries + 2 * forward.num_stages * forward.block_keys
    assert rows * tile <= available
    assert 2 * (query.block_queries + query.num_stages * query.block_keys) * tile <= available
    assert 2 * (key.block_keys + key.num_stages * key.block_queries) * tile <= available
    assert forward == forward_config(shipped.head_dim, shipped.dtype, shipped.capability)


def test_narrow_heads_and_unknown_devices_have_a_configuration_too() -> None:
    for capability in ((7, 5), (8, 9), (10, 0), (12, 0)):
        for dim in (1, 16, 80, 192):
            config = forward_config(dim, torch.float16, capability)
            assert config.block_queries >= 16
            assert config.block_keys >= 16
