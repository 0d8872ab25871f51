"""The bias by distance where kernels read it: one vector a head, a number a distance.

That of query i and key j lies j − i numbers after that of the first query and the first key
(`kernels/distance_bias.py`), so a tile reads one number more than it has rows and columns.
R rows (queries), C keys of a tile; p_ pointers, o_ offsets, m_ masks.
"""

import triton
import triton.language as tl


@triton.jit
def first_pair(p_bias, heads, query_length, key_length):
    """Where the bias of the first query and the first key lies, of a head or of several."""
    return p_bias + heads.to(tl.int64) * (query_length + key_length - 1) + query_length - 1


@triton.jit
def bias_rows(p_bias, head, o_rows, query_length, key_length):
    """Where the bias of each row and key 0 lies; rows past the last, never stored, read the last's."""
    o_within = tl.minimum(o_rows, query_length - 1)
    return first_pair(p_bias, head, query_length, key_length) - o_within


@triton.jit
def load_bias(p_rows, o_keys, m_keys, MASKED: tl.constexpr):
    """The bias `[R, C]` of rows that `bias_rows` gives, 0 for keys outside a mask that is asked for."""
    p_tile = p_rows[:, None] + o_keys[None, :]
    if MASKED:
        return tl.load(p_tile, mask=m_keys[None, :], other=0.0)
    return tl.load(p_tile)
