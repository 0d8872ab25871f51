"""Loads of tiles whose edges may lie outside the tensor. m_ masks, p_ pointers."""

import triton
import triton.language as tl


@triton.jit
def load_tile(p_tile, m_rows, m_columns, MASK_ROWS: tl.constexpr, MASK_COLUMNS: tl.constexpr):
    """The values at these pointers, 0 where a mask that is asked for is False.

    A mask that is not asked for costs nothing: whole tiles are read without a comparison.
    """
    if MASK_ROWS and MASK_COLUMNS:
        return tl.load(p_tile, mask=m_rows & m_columns, other=0.0)
    if MASK_ROWS:
        return tl.load(p_tile, mask=m_rows, other=0.0)
    if MASK_COLUMNS:
        return tl.load(p_tile, mask=m_columns, other=0.0)
    return tl.load(p_tile)
