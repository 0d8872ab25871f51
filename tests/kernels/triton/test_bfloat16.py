"""What the tests mend of Triton's interpreter, against PyTorch and NumPy."""

import numpy as np
import torch

from tests.kernels.triton.conftest import _to_bfloat16


def test_numbers_round_to_bfloat16_as_pytorch_rounds_them() -> None:
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(10_000, generator=generator) * 10 ** torch.randint(
        -30, 30, (10_000,), generator=generator
    )
    halfway = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 3.4e38, 1e-45])
    numbers = torch.cat([numbers.float(), halfway, torch.tensor([0.0, -0.0, torch.inf, torch.nan])])
    ours = _to_bfloat16(numbers.numpy()).view(np.int16)
    theirs = numbers.bfloat16()
    np.testing.assert_array_equal(
        torch.from_numpy(ours).view(torch.bfloat16).float().numpy(), theirs.float().numpy()
    )
