"""What the splits of a decode left, made one: the online softmax once more.

H query heads, Q queries, S splits; p_ pointers, b_ blocks, o_ offsets, m_ masks.
"""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from attnscope.kernels.triton.decode_plan import block_width
from attnscope.kernels.triton.online_softmax import exponential, finish

_TOGETHER = 16


@triton.jit(do_not_specialize=["splits"])
def combine_kernel(
    p_part_out,
    p_part_total,
    p_part_highest,
    p_out,
    p_lse,
    splits,
    VALUE_DIM: tl.constexpr,
    BLOCK_VALUE: tl.constexpr,
    TOGETHER: tl.constexpr,
):
    """The splits of one query of one head, some together at a time: the online softmax once more."""
    row = tl.program_id(0).to(tl.int64)
    o_value = tl.arange(0, BLOCK_VALUE)
    m_value = o_value < VALUE_DIM
    b_out = tl.zeros([BLOCK_VALUE], tl.float32)
    total = 0.0
    highest = tl.load(p_part_highest + row * splits)
    for first in range(0, splits, TOGETHER):
        o_splits = first + tl.arange(0, TOGETHER)
        m_splits = o_splits < splits
        o_parts = row * splits + o_splits
        b_highest = tl.load(p_part_highest + o_parts, mask=m_splits, other=float("-inf"))
        b_total = tl.load(p_part_total + o_parts, mask=m_splits, other=0.0)
        b_part = tl.load(
            p_part_out + o_parts[:, None] * VALUE_DIM + o_value[None, :],
            mask=m_splits[:, None] & m_value[None, :],
            other=0.0,
        )
        new = tl.maximum(highest, tl.max(b_highest, 0))
        b_kept = exponential(b_highest - new)
        shrink = exponential(highest - new)
        total = total * shrink + tl.sum(b_total * b_kept, 0)
        b_out = b_out * shrink + tl.sum(b_part * b_kept[:, None], 0)
        highest = new
    safe, lse = finish(total, highest, 1.0)
    tl.store(p_lse + row, lse)
    tl.store(p_out + row * VALUE_DIM + o_value, b_out / safe, mask=m_value)


def combine(
    part_out_BHQSD: Tensor,
    part_total_BHQS: Tensor,
    part_highest_BHQS: Tensor,
    out_BHQD: Tensor,
    lse_BHQ: Tensor,
) -> None:
    """Fill the output and the log-sum-exp from those of every split; all contiguous.

    Args:
        part_out_BHQSD: float32, not divided by its total yet.
        part_total_BHQS: float32, the sums of exponentials, relative to the highest score.
        part_highest_BHQS: float32, −inf where a split saw nothing.
        out_BHQD: Written to.
        lse_BHQ: float32, written to.
    """
    # Any: a type checker takes a launch for a call of the Python function.
    launch: Any = combine_kernel[(lse_BHQ.numel(),)]
    launch(
        part_out_BHQSD,
        part_total_BHQS,
        part_highest_BHQS,
        out_BHQD,
        lse_BHQ,
        part_total_BHQS.shape[-1],
        VALUE_DIM=out_BHQD.shape[-1],
        BLOCK_VALUE=block_width(out_BHQD.shape[-1]),
        TOGETHER=_TOGETHER,
    )
