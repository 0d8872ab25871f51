"""What both kernels of the backward pass do to a tile of products: each weight anew.

R rows (queries), C keys of a tile; b_ blocks, o_ offsets, m_ masks.
"""

import triton
import triton.language as tl

from attnscope.kernels.triton.online_softmax import LN_2, tanh


@triton.jit
def weights_and_slopes(
    b_products,
    b_lse,
    b_bias,
    factor,
    cap_factor,
    HAS_SOFTCAP: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):
    """From q·k: each pair's weight, and how much its score grows with its scaled product.

    Args:
        b_products: q·k, `[R, C]` or `[C, R]`.
        b_lse: The rows' log-sum-exp in powers of 2, shaped to broadcast.
        b_bias: What is added to the pairs' natural scores; whatever where nothing is.
        factor: See `score_factors`.
        cap_factor: The same.
        HAS_SOFTCAP: Whether the scores are capped.
        HAS_BIAS: Whether a bias by distance is added.
    """
    b_scores = b_products * factor
    b_slopes = tl.full(b_products.shape, 1.0, tl.float32)
    if HAS_SOFTCAP:
        b_tanh = tanh(b_scores)
        b_slopes = 1 - b_tanh * b_tanh
        b_scores = b_tanh * cap_factor
    if HAS_BIAS:
        b_scores += b_bias * (1 / LN_2)
    return tl.exp2(b_scores - b_lse), b_slopes
