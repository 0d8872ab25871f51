"""Grouped products without numbers, beside PyTorch's kernel with them."""

import pytest
import torch
from torch import Tensor

from attnscope.models.grouped_products import GroupedProducts

ROWS, GROUPS, WIDE, NARROW = 24, 3, 16, 8
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def _differentiated(device: str, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """A product of rows by the matrix of their group, and both gradients."""
    made = {"device": device, "dtype": dtype, "requires_grad": True}
    rows_SK = torch.ones(ROWS, WIDE, **made)
    matrices_EKN = torch.ones(GROUPS, WIDE, NARROW, **made)
    ends_E = torch.tensor([8, 8, ROWS], dtype=torch.int32).to(device)
    out_SN = torch.nn.functional.grouped_mm(rows_SK, matrices_EKN, offs=ends_E)
    grads = torch.autograd.grad(out_SN, (rows_SK, matrices_EKN), torch.ones_like(out_SN))
    return (out_SN, *grads)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_shapes_and_dtypes_are_those_of_the_kernel(dtype: torch.dtype) -> None:
    with GroupedProducts():
        told = _differentiated("meta", dtype)
    for found, expected in zip(told, _differentiated("cpu", dtype), strict=True):
        assert found.device.type == "meta"
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        assert found.untyped_storage().nbytes() == expected.untyped_storage().nbytes()


def test_without_it_pytorch_refuses_float32() -> None:
    with pytest.raises(RuntimeError, match="Expected inputs of BF16 type"):
        _differentiated("meta", torch.float32)


@pytest.mark.parametrize("ndim", [(3, 3), (3, 2)], ids=str)
def test_matrices_may_be_grouped_on_either_side(ndim: tuple[int, int]) -> None:
    shapes = {3: (GROUPS, WIDE, WIDE), 2: (WIDE, GROUPS * NARROW)}
    left, right = (torch.empty(shapes[number], device="meta") for number in ndim)
    ends_E = torch.empty(GROUPS, dtype=torch.int32, device="meta") if ndim[1] == 2 else None
    with GroupedProducts():
        found = torch.nn.functional.grouped_mm(left, right, offs=ends_E)
    assert found.shape == ((GROUPS, WIDE, WIDE) if ndim[1] == 3 else (WIDE, GROUPS * NARROW))
