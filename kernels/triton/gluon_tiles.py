"""Which tiles of keys the programs of `flash_gluon` visit, who copies them, and their masks.

Names as in `flash_gluon`.
"""

# What a kernel says is compiled, not called: Gluon's names are typed for its compiler.
# pyright: reportCallIssue=false, reportArgumentType=false, reportAssignmentType=false
# pyright: reportOperatorIssue=false, reportGeneralTypeIssues=false

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier

from attnscope.kernels.triton.gluon_names import copy_in
from attnscope.kernels.triton.key_parts import key_parts
from attnscope.kernels.triton.work_order import place_of, work_at

ROWS = gl.constexpr(64)
"""Queries of a group: what a warp group's matrix instruction takes."""

GROUPS = gl.constexpr(2)

BLOCK_QUERIES = gl.constexpr(128)


@gluon.jit
def work_of(
    turn,
    sizes,
    BLOCK_KEYS: gl.constexpr,
    BOUNDED_BEFORE: gl.constexpr,
    BOUNDED_AFTER: gl.constexpr,
):
    """What a program does in one of its turns.

    Returns:
        The sequence, the head and the first row of its block of queries; the first and the end key
        of the band; how many tiles it has, counted from that first key, one at least; and of which
        tile to which every query sees every key.
    """
    sequences, heads, _, query_length, key_length, query_offset, before, after, section = sizes
    place = place_of(turn, gl.program_id(0), gl.num_programs(0))
    blocks = gl.cdiv(query_length, BLOCK_QUERIES)
    work = work_at(place, blocks, sequences * heads, section)
    block, flat_head = work
    first_row = block * BLOCK_QUERIES
    parts = key_parts(
        None,
        None,
        0,
        query_offset + first_row,
        query_offset + gl.minimum(first_row + BLOCK_QUERIES, query_length) - 1,
        key_length,
        before,
        after,
        0,
        BLOCK_KEYS,
        BOUNDED_BEFORE,
        BOUNDED_AFTER,
        False,
        False,
        False,
    )
    _first_start, _first_end, start, whole_first, whole_last, end = parts
    tiles = gl.maximum(gl.cdiv(end - start, BLOCK_KEYS), 1)
    whole_from = (whole_first - start) // BLOCK_KEYS
    whole_to = (whole_last - start) // BLOCK_KEYS
    sequence, head = flat_head // heads, flat_head % heads
    return sequence, head, first_row, start, end, tiles, whole_from, whole_to


@gluon.jit
def fetch(t_all, s_ring, full, empty, visit, sequence, head, row):
    """Copies the tile of a visit to its stage of a ring, when both groups have left it."""
    STAGES: gl.constexpr = s_ring.shape[0]
    stage = visit % STAGES
    mbarrier.wait(empty.index(stage), (visit // STAGES + 1) & 1)
    mbarrier.expect(full.index(stage), t_all.block_type.nbytes)
    copy_in(t_all, [sequence, head, row, 0], full.index(stage), s_ring.index(stage))


@gluon.jit
def copy_tiles(
    descriptors,
    memory,
    barriers,
    sizes,
    turns,
    BOUNDED_BEFORE: gl.constexpr,
    BOUNDED_AFTER: gl.constexpr,
):
    """The group that copies: in the order in which the others ask."""
    t_q, t_k, t_v = descriptors
    s_q, s_k, s_v = memory
    q_full, q_empty, k_full, k_empty, v_full, v_empty, _baton = barriers
    BLOCK_KEYS: gl.constexpr = s_k.shape[3]
    visit = 0
    for turn in range(turns):
        work = work_of(turn, sizes, BLOCK_KEYS, BOUNDED_BEFORE, BOUNDED_AFTER)
        sequence, head, first_row, start, _end, tiles, _whole_from, _whole_to = work
        kv_head = head // sizes[2]
        for group in gl.static_range(GROUPS):
            row = first_row + group * ROWS
            mbarrier.wait(q_empty.index(group), (turn + 1) & 1)
            mbarrier.expect(q_full.index(group), t_q.block_type.nbytes)
            copy_in(t_q, [sequence, head, row, 0], q_full.index(group), s_q.index(group))
        key = start + (tiles - 1) * BLOCK_KEYS
        fetch(t_k, s_k, k_full, k_empty, visit, sequence, kv_head, key)
        for _ in range(1, tiles):
            fetch(t_k, s_k, k_full, k_empty, visit + 1, sequence, kv_head, key - BLOCK_KEYS)
            fetch(t_v, s_v, v_full, v_empty, visit, sequence, kv_head, key)
            key -= BLOCK_KEYS
            visit += 1
        fetch(t_v, s_v, v_full, v_empty, visit, sequence, kv_head, start)
        visit += 1


@gluon.jit
def hide(
    b_scores,
    key,
    o_positions,
    end,
    before,
    after,
    BOUNDED_BEFORE: gl.constexpr,
    BOUNDED_AFTER: gl.constexpr,
    LIMITED: gl.constexpr,
    SCORES: gl.constexpr,
):
    """Scores `[R, C]` of the keys from `key` on, −inf where the rule hides them."""
    o_keys = key + gl.arange(0, b_scores.shape[1], layout=gl.SliceLayout(0, SCORES))
    if LIMITED:
        b_scores = gl.where((o_keys < end)[None, :], b_scores, float("-inf"))
    if BOUNDED_BEFORE:
        m_seen = o_keys[None, :] >= o_positions[:, None] - before
        b_scores = gl.where(m_seen, b_scores, float("-inf"))
    if BOUNDED_AFTER:
        m_seen = o_keys[None, :] <= o_positions[:, None] + after
        b_scores = gl.where(m_seen, b_scores, float("-inf"))
    return b_scores
