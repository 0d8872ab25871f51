import math

import pytest
import torch

from attnscope.kernels.triton.decode_plan import MOST, decode_config, splits


def waves(rows: int, tiles: int, parts: int, multiprocessors: int) -> tuple[int, int]:
    """Waves of programs, and tiles of each program."""
    return math.ceil(rows * parts / (2 * multiprocessors)), math.ceil(tiles / parts)


@pytest.mark.parametrize("rows", [1, 8, 64, 100, 264, 1000])
@pytest.mark.parametrize("tiles", [1, 2, 63, 500, 4096])
def test_no_other_number_of_splits_finishes_sooner(rows: int, tiles: int) -> None:
    def time(parts: int) -> int:
        many, each = waves(rows, tiles, parts, 132)
        return many * (each + 2)

    found = splits(rows, tiles, 132)
    assert 1 <= found <= min(tiles, MOST)
    assert all(time(found) < time(parts) for parts in range(1, found))
    assert all(time(found) <= time(parts) for parts in range(found, min(tiles, MOST) + 1))


def test_a_single_sequence_uses_the_whole_device_and_a_large_batch_is_not_split() -> None:
    assert 8 * splits(8, 512, 132) > 0.9 * 264
    assert splits(264, 512, 132) == 1
    assert splits(1, 0, 132) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("width", [8, 16, 64, 80, 128, 192, 256])
@pytest.mark.parametrize("paged", [False, True])
@pytest.mark.parametrize("value_width", [16, 128])
def test_two_programs_share_the_memory_of_a_multiprocessor(
    dtype, width: int, value_width: int, paged: bool
) -> None:
    found = decode_config(4, width, value_width, dtype, paged=paged)
    padded = sum(1 << max((each - 1).bit_length(), 4) for each in (width, value_width))
    buffers = 2  # (3 − 1) stages; a page's lookup takes as many again
    held = buffers * found.block_keys * padded * dtype.itemsize
    assert found.num_stages == (5 if paged else 3)
    assert 2 * held < 227 * 1024
    assert found.rows in (16, 32)
    assert found.block_keys in (16, 32, 64, 128)


def test_rows_are_those_of_the_group_up_to_a_tile() -> None:
    rows = [decode_config(n, 64, 64, torch.float16, paged=False).rows for n in (1, 17, 300)]
    assert rows == [16, 32, 32]
