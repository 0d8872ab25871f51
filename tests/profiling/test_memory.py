"""Peaks of calls whose allocations can be added up by hand."""

from collections.abc import Callable

import psutil
import pytest
import torch

from attnscope.profiling.memory import counted_peak, peak_memory, source_of
from attnscope.profiling.sources import MACHINE

CPU = torch.device("cpu")
MIB = 2**20


def one_tensor() -> None:
    torch.empty(4 * MIB, dtype=torch.uint8)


def one_after_the_other() -> None:
    for size in (1, 5, 3):
        torch.empty(size * MIB, dtype=torch.uint8)


def stairs() -> None:
    """1, 3, 6 held, 2 given back, 5 taken, all given back but the last."""
    first = torch.empty(1 * MIB, dtype=torch.uint8)
    second = torch.empty(2 * MIB, dtype=torch.uint8)
    third = torch.empty(3 * MIB, dtype=torch.uint8)
    del second
    fourth = torch.empty(5 * MIB, dtype=torch.uint8)
    del first, third
    torch.empty(3 * MIB, dtype=torch.uint8)
    del fourth


def inside_an_operator() -> None:
    """A product, and what is freed before it is not there with it."""
    made = torch.ones(512, 512) @ torch.ones(512, 512)
    made.add_(1)
    del made
    torch.ones(256, 256)


@pytest.mark.parametrize(
    ("call", "peak"),
    [
        (lambda: None, 0),
        (one_tensor, 4 * MIB),
        (one_after_the_other, 5 * MIB),
        (stairs, 9 * MIB),
        (inside_an_operator, 3 * MIB),
    ],
)
def test_the_peak_is_the_sum_that_can_be_done_by_hand(call: Callable[[], None], peak: int) -> None:
    assert counted_peak(call, CPU) == (0, peak)


def test_what_the_setup_left_makes_room_when_it_is_given_back() -> None:
    held: list[torch.Tensor] = []

    def setup() -> None:
        torch.empty(100 * MIB, dtype=torch.uint8)
        held.append(torch.empty(8 * MIB, dtype=torch.uint8))

    def call() -> None:
        torch.empty(1 * MIB, dtype=torch.uint8)
        held.clear()
        torch.empty(6 * MIB, dtype=torch.uint8)

    assert counted_peak(call, CPU, setup=setup) == (8 * MIB, 1 * MIB)
    found = peak_memory(call, CPU, held_bytes=50, setup=setup)
    assert (found.allocated.value, found.transient.value) == (9 * MIB + 50, 1 * MIB)


def test_the_scratch_of_a_fused_kernel_is_counted() -> None:
    # A dispatch mode sees only the output here.
    q = torch.randn(1, 8, 512, 64)

    def call() -> None:
        torch.nn.functional.scaled_dot_product_attention(q, q, q)

    assert counted_peak(call, CPU)[1] > q.nbytes + 8 * 512 * 4


def test_four_numbers_each_with_its_meaning_or_its_reason() -> None:
    found = peak_memory(stairs, CPU, held_bytes=100)
    assert found.transient.value == 9 * MIB
    assert found.allocated.value == 9 * MIB + 100
    assert found.reserved.value is None
    assert "no cache of freed memory on cpu" in found.reserved.reason
    assert found.process.value == pytest.approx(psutil.Process().memory_info().rss, rel=0.05)
    assert 0 < (found.device.value or 0) <= psutil.virtual_memory().total
    assert source_of(CPU) == (MACHINE, "")
