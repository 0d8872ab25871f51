import pytest
import torch

from attnscope.kernels.triton.exponentials import BLOCK, exponentials


def test_every_number_is_two_to_minus_itself_as_often_as_asked() -> None:
    x_N = torch.rand(2 * BLOCK) * 4 - 2
    expected = x_N.double()
    for _ in range(3):
        expected = torch.exp2(-expected)
    assert exponentials(x_N, 3) == 6 * BLOCK
    torch.testing.assert_close(x_N.double(), expected, rtol=1e-5, atol=1e-6)


def test_it_tends_to_the_number_that_is_two_to_minus_itself() -> None:
    x_N = torch.rand(BLOCK)
    exponentials(x_N, 60)
    assert x_N[0].item() == pytest.approx(0.6411857)


def test_only_whole_blocks_are_taken() -> None:
    with pytest.raises(AssertionError):
        exponentials(torch.rand(BLOCK + 1), 1)
