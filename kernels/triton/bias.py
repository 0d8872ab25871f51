"""The bias by distance where kernels read it: one vector a head, a number a distance.

`kernels/distance_bias.py` says in which order. A tile of R rows and C keys has R + C − 1 distances, and
that is what is read of memory; its pairs gather theirs from there. Unlike pointers of every pair, which
take two registers each, nothing has to change its layout then.
p_ pointers, b_ blocks, o_ offsets, m_ masks.
"""

import triton
import triton.language as tl


@triton.jit
def bias_of_head(p_bias, heads, query_length, key_length):
    """Where the vector of a head begins, or those of several."""
    return p_bias + heads.to(tl.int64) * (query_length + key_length - 1)


@triton.jit
def load_bias(p_bias, apart, o_apart, query_length, key_length):
    """The bias of the pairs of a tile; 0 for those outside the call.

    Args:
        p_bias: The head's vector.
        apart: The tile's first key less its first row.
        o_apart: Key less row, both counted within the tile: of each of its pairs, rows by keys or keys by
            rows.
        query_length: Of the call, Q.
        key_length: K.
    """
    HEIGHT: tl.constexpr = o_apart.shape[0]
    WIDTH: tl.constexpr = o_apart.shape[1]
    REACH: tl.constexpr = max(WIDTH, HEIGHT)
    o_columns = query_length - 1 + apart - REACH + tl.arange(0, 2 * REACH)
    m_columns = (o_columns >= 0) & (o_columns < query_length + key_length - 1)
    b_bias = tl.load(p_bias + o_columns, mask=m_columns, other=0.0)
    o_pairs = (o_apart + REACH).reshape(HEIGHT * WIDTH)
    return tl.gather(b_bias, o_pairs, 0).reshape(HEIGHT, WIDTH)
