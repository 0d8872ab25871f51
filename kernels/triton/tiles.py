"""Loads and stores of tiles whose edges may lie outside the tensor. m_ masks, p_ pointers."""

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


@triton.jit
def load_columns(
    p_rows,
    m_rows,
    step,
    FIRST: tl.constexpr,
    WIDTH: tl.constexpr,
    DIM: tl.constexpr,
    MASK_ROWS: tl.constexpr,
):
    """Columns FIRST to FIRST + WIDTH of DIM, `[rows, WIDTH]`; 0 past the last.

    Args:
        p_rows: Where each row begins.
        m_rows: Which rows exist.
        step: From one column to the next.
        FIRST: See above.
        WIDTH: See above.
        DIM: See above.
        MASK_ROWS: Whether to ask `m_rows`.
    """
    o_columns = FIRST + tl.arange(0, WIDTH)
    p_tile = p_rows[:, None] + (o_columns * step)[None, :]
    m_columns = (o_columns < DIM)[None, :]
    return load_tile(p_tile, m_rows[:, None], m_columns, MASK_ROWS, DIM < FIRST + WIDTH)


@triton.jit
def load_columns_transposed(
    p_rows,
    m_rows,
    step,
    FIRST: tl.constexpr,
    WIDTH: tl.constexpr,
    DIM: tl.constexpr,
    MASK_ROWS: tl.constexpr,
):
    """As `load_columns`, `[WIDTH, rows]`."""
    o_columns = FIRST + tl.arange(0, WIDTH)
    p_tile = p_rows[None, :] + (o_columns * step)[:, None]
    m_columns = (o_columns < DIM)[:, None]
    return load_tile(p_tile, m_rows[None, :], m_columns, MASK_ROWS, DIM < FIRST + WIDTH)


@triton.jit
def store_columns(
    p_rows, b_tile, m_rows, FIRST: tl.constexpr, WIDTH: tl.constexpr, DIM: tl.constexpr
):
    """Writes the tile `[rows, WIDTH]` to these columns of rows that lie without gaps in them."""
    o_columns = FIRST + tl.arange(0, WIDTH)
    m_tile = m_rows[:, None] & (o_columns < DIM)[None, :]
    tl.store(p_rows[:, None] + o_columns[None, :], b_tile.to(p_rows.dtype.element_ty), mask=m_tile)
