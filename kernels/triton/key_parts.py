"""Which keys a block of queries visits, and where among them the rule must be applied.

C keys of a tile; p_ pointers.
"""

import triton
import triton.language as tl


@triton.jit
def key_parts(
    p_bounds,
    p_documents,
    batch,
    first_position,
    last_position,
    key_length,
    before,
    after,
    first_keys,
    BLOCK_KEYS: tl.constexpr,
    BOUNDED_BEFORE: tl.constexpr,
    BOUNDED_AFTER: tl.constexpr,
    FIRST_KEYS_CAUSAL: tl.constexpr,
    HAS_PADDING: tl.constexpr,
    HAS_DOCUMENTS: tl.constexpr,
):
    """The runs of keys that the queries from `first_position` to `last_position` see.

    Returns:
        Six keys. `[0]` to `[1]`: the first keys, which every query sees. `[2]` to `[5]`: the band;
        from `[3]` to `[4]` every query sees every key, in whole tiles counted from `[2]`. Runs may
        be empty, and `[3]` may lie past `[5]`.
    """
    start = 0
    end = key_length
    if HAS_PADDING:
        start = tl.load(p_bounds + batch * 3)
        end = tl.load(p_bounds + batch * 3 + 1)
    first_start = start
    first_end = tl.minimum(first_keys, end)
    if FIRST_KEYS_CAUSAL:
        first_end = tl.minimum(first_end, last_position + 1)
    start = tl.maximum(start, first_keys)
    whole_start = start
    whole_end = end
    if BOUNDED_AFTER:
        whole_end = tl.minimum(end, first_position + after + 1)
        end = tl.minimum(end, last_position + after + 1)
    if BOUNDED_BEFORE:
        whole_start = tl.maximum(start, last_position - before)
        start = tl.maximum(start, first_position - before)
    if HAS_DOCUMENTS:
        start = tl.maximum(start, tl.load(p_documents + first_position * 2))
        whole_start = tl.maximum(whole_start, tl.load(p_documents + last_position * 2))
        end = tl.minimum(end, tl.load(p_documents + last_position * 2 + 1))
        whole_end = tl.minimum(whole_end, tl.load(p_documents + first_position * 2 + 1))
    if HAS_PADDING:
        # Keys hidden between visible ones: no tile is known to be whole.
        has_holes = tl.load(p_bounds + batch * 3 + 2)
        whole_end = tl.where(has_holes != 0, start, whole_end)
    whole_first = start + tl.cdiv(whole_start - start, BLOCK_KEYS) * BLOCK_KEYS
    whole_tiles = tl.maximum(whole_end - whole_first, 0) // BLOCK_KEYS
    whole_last = whole_first + whole_tiles * BLOCK_KEYS
    return first_start, first_end, start, whole_first, whole_last, end


@triton.jit
def key_runs(p_documents, o_positions, m_rows, before, after, HAS_DOCUMENTS: tl.constexpr):
    """The first and the last key that each query sees: of its band, within its document."""
    o_from = o_positions - before
    o_to = o_positions + after
    if HAS_DOCUMENTS:
        p_own = p_documents + o_positions * 2
        o_from = tl.maximum(o_from, tl.load(p_own, mask=m_rows, other=0))
        o_to = tl.minimum(o_to, tl.load(p_own + 1, mask=m_rows, other=0) - 1)
    return o_from, o_to
