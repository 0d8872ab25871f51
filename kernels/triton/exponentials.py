"""How many exponentials a device makes in a second: the other roof of attention beside the matmul.

Attention takes one exponential for each 4·D FLOP, so at head_dim 64 a fast kernel waits for this
unit as much as for the tensor cores (FlashAttention-3, arXiv 2407.08608 §3.1).
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 2048
NUM_WARPS = 4


@triton.jit
def exponentials_kernel(p_x, rounds, BLOCK: tl.constexpr):
    """`x = 2 ** -x`, `rounds` times; it tends to 0.64, so nothing overflows or is known before."""
    o_x = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    b_x = tl.load(p_x + o_x)
    for _ in range(rounds):
        b_x = tl.exp2(-b_x)
    tl.store(p_x + o_x, b_x)


def exponentials(x_N: Tensor, rounds: int) -> int:
    """Applies `x = 2 ** -x` in place, `rounds` times.

    Args:
        x_N: float32 `[N]`, N a multiple of 2048, contiguous.
        rounds: Exponentials of each number.

    Returns:
        How many exponentials that is.
    """
    assert x_N.dtype == torch.float32
    assert x_N.is_contiguous()
    assert x_N.numel() % BLOCK == 0
    kernel: Any = exponentials_kernel
    kernel[(x_N.numel() // BLOCK,)](x_N, rounds, BLOCK=BLOCK, num_warps=NUM_WARPS)
    return x_N.numel() * rounds
