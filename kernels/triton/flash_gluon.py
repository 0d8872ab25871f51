"""Flash attention, forward, with every wait on Hopper written out: FlashAttention-3's schedule in Gluon.

A program takes blocks of 128 queries one after the other. Of its three groups of four warps one
copies: tiles of keys and values into two rings in shared memory, and the queries beside them. Two
compute, 64 rows each, from the last key to the first (arXiv 2407.08608 §3.1 and §3.2): a group issues
q·k of the next tile and p·v of the last one together, hands the baton to the other group, and takes
the softmax of the next tile while its own p·v and then the other's products run. Only tiles that the
rule divides are masked.

Triton's interpreter runs no Gluon: tests/kernels/triton/gluon_simulator does. Serves what
`gluon_misfit` finds nothing wrong with; `flash_choice` gives the rest to the other kernels.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim; in a kernel R rows (queries of a
group), C keys of a tile, p_ pointers, t_ tensor descriptors, s_ shared memory, b_ blocks, o_ offsets.
"""

# What a kernel says is compiled, not called: Gluon's names are typed for its compiler.
# pyright: reportCallIssue=false, reportArgumentType=false, reportAssignmentType=false
# pyright: reportOperatorIssue=false, reportGeneralTypeIssues=false

from typing import Any

import torch
import triton
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia import hopper
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from attnscope.kernels.triton.configurations import FlashConfig
from attnscope.kernels.triton.device import multiprocessors
from attnscope.kernels.triton.flash_rule import FlashRule, reaches_past
from attnscope.kernels.triton.gluon_names import copy_out
from attnscope.kernels.triton.gluon_tiles import (
    BLOCK_QUERIES,
    GROUPS,
    ROWS,
    copy_tiles,
    hide,
    work_of,
)
from attnscope.kernels.triton.online_softmax import LOWEST, finish, score_factors, weigh
from attnscope.kernels.triton.work_order import section_heads, turns_of

REGISTERS = gl.constexpr(240)
"""Of a thread of the two groups that compute: a multiprocessor has 504 for three, and one copies with 24."""


@gluon.jit
def attend(
    t_out,
    p_lse,
    memory,
    s_out,
    barriers,
    sizes,
    turns,
    factor,
    GROUP: gl.constexpr,
    BOUNDED_BEFORE: gl.constexpr,
    BOUNDED_AFTER: gl.constexpr,
    LIMITED: gl.constexpr,
):
    """A group of four warps: the online softmax over the tiles of its 64 rows, and their output."""
    s_queries, s_k, s_v = memory
    q_full, q_empty, k_full, k_empty, v_full, v_empty, baton = barriers
    _sequences, heads, _, query_length, _key_length, query_offset, before, after, _section = sizes
    STAGES: gl.constexpr = s_k.shape[0]
    BLOCK_KEYS: gl.constexpr = s_k.shape[3]
    HEAD_DIM: gl.constexpr = s_k.shape[4]
    SCORES: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_KEYS, 16])
    OUTPUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, HEAD_DIM, 16])
    OUTPUT_ROWS: gl.constexpr = gl.SliceLayout(1, OUTPUT)
    WEIGHTS: gl.constexpr = gl.DotOperandLayout(0, OUTPUT, 2)
    SCORE_ROWS: gl.constexpr = gl.SliceLayout(1, SCORES)
    s_q = s_queries.index(GROUP).reshape([ROWS, HEAD_DIM])
    s_result = s_out.index(GROUP)
    b_nothing = gl.zeros([ROWS, BLOCK_KEYS], gl.float32, SCORES)
    visit = 0
    for turn in range(turns):
        work = work_of(turn, sizes, BLOCK_KEYS, BOUNDED_BEFORE, BOUNDED_AFTER)
        sequence, head, first_row, start, end, tiles, whole_from, whole_to = work
        first_row += GROUP * ROWS
        o_rows = first_row + gl.arange(0, ROWS, layout=SCORE_ROWS)
        o_positions = query_offset + o_rows
        b_out = gl.zeros([ROWS, HEAD_DIM], gl.float32, OUTPUT)
        b_total = gl.zeros([ROWS], gl.float32, SCORE_ROWS)
        b_highest = gl.full([ROWS], LOWEST, gl.float32, SCORE_ROWS)

        mbarrier.wait(q_full.index(GROUP), turn & 1)
        mbarrier.wait(k_full.index(visit % STAGES), visit // STAGES & 1)
        s_keys = s_k.index(visit % STAGES).reshape([BLOCK_KEYS, HEAD_DIM]).permute([1, 0])
        b_scores = hopper.warpgroup_mma(s_q, s_keys, b_nothing, use_acc=False, is_async=True)
        b_scores = hopper.warpgroup_mma_wait(0, deps=[b_scores])
        mbarrier.arrive(k_empty.index(visit % STAGES), count=1)
        b_scores = hide(
            b_scores,
            start + (tiles - 1) * BLOCK_KEYS,
            o_positions,
            end,
            before,
            after,
            BOUNDED_BEFORE,
            BOUNDED_AFTER,
            LIMITED,
            SCORES,
        )
        b_weights, _b_shrink, b_total, b_highest = weigh(b_total, b_highest, b_scores, factor)
        b_weights = gl.convert_layout(gl.cast(b_weights, t_out.dtype), WEIGHTS)
        mbarrier.wait(baton.index(GROUP), (visit + 1 - GROUP) & 1)
        # From the right edge of the band over its middle to its left edge.
        for part in gl.static_range(0 if BOUNDED_AFTER else 1, 3 if BOUNDED_BEFORE else 2):
            if part == 0:
                tile, last = tiles - 1, whole_to
            elif part == 1:
                tile, last = gl.minimum(whole_to, tiles - 1), whole_from
            else:
                tile, last = gl.minimum(whole_from, tiles - 1), 0
            for done in range(last, tile):
                old_stage, old_phase = visit % STAGES, visit // STAGES & 1
                visit += 1
                stage = visit % STAGES
                mbarrier.wait(k_full.index(stage), visit // STAGES & 1)
                s_keys = s_k.index(stage).reshape([BLOCK_KEYS, HEAD_DIM]).permute([1, 0])
                b_scores = hopper.warpgroup_mma(
                    s_q, s_keys, b_nothing, use_acc=False, is_async=True
                )
                mbarrier.wait(v_full.index(old_stage), old_phase)
                s_values = s_v.index(old_stage).reshape([BLOCK_KEYS, HEAD_DIM])
                b_out = hopper.warpgroup_mma(b_weights, s_values, b_out, is_async=True)
                mbarrier.arrive(baton.index(1 - GROUP), count=1)

                b_scores = hopper.warpgroup_mma_wait(1, deps=[b_scores])
                mbarrier.arrive(k_empty.index(stage), count=1)
                if part != 1:
                    b_scores = hide(
                        b_scores,
                        start + (last + tile - 1 - done) * BLOCK_KEYS,
                        o_positions,
                        end,
                        before,
                        after,
                        BOUNDED_BEFORE,
                        BOUNDED_AFTER,
                        LIMITED,
                        SCORES,
                    )
                state = weigh(b_total, b_highest, b_scores, factor)
                b_next, b_shrink, b_total, b_highest = state
                b_next = gl.convert_layout(gl.cast(b_next, t_out.dtype), WEIGHTS)
                # Stands between the exponentials and the wait for p·v, which else the assembler
                # moves before them.
                mbarrier.wait(baton.index(GROUP), (visit + 1 - GROUP) & 1)
                waited = hopper.warpgroup_mma_wait(0, deps=[b_out, b_weights, b_next])
                b_out, _b_used, b_weights = waited
                mbarrier.arrive(v_empty.index(old_stage), count=1)
                b_out = b_out * gl.convert_layout(b_shrink, OUTPUT_ROWS)[:, None]

        mbarrier.arrive(q_empty.index(GROUP), count=1)
        stage = visit % STAGES
        mbarrier.wait(v_full.index(stage), visit // STAGES & 1)
        s_values = s_v.index(stage).reshape([BLOCK_KEYS, HEAD_DIM])
        b_out = hopper.warpgroup_mma(b_weights, s_values, b_out, is_async=True)
        mbarrier.arrive(baton.index(1 - GROUP), count=1)
        b_safe, b_lse = finish(b_total, b_highest)
        p_row = p_lse + gl.cast(sequence * heads + head, gl.int64) * query_length
        gl.store(p_row + o_rows, b_lse, mask=o_rows < query_length)
        b_out, _b_used = hopper.warpgroup_mma_wait(0, deps=[b_out, b_weights])
        mbarrier.arrive(v_empty.index(stage), count=1)
        visit += 1
        b_out = b_out / gl.convert_layout(b_safe, OUTPUT_ROWS)[:, None]
        # The rows of the turn before have left.
        tma.store_wait(0)
        s_result.reshape([ROWS, HEAD_DIM]).store(gl.cast(b_out, t_out.dtype))
        hopper.fence_async_shared()
        copy_out(t_out, [sequence, head, first_row, 0], s_result)
    tma.store_wait(0)


@gluon.jit
def barriers_of(number: gl.constexpr, count: gl.constexpr):
    """Barriers in shared memory, each of which waits for so many arrivals."""
    barriers = gl.allocate_shared_memory(gl.int64, [number, 1], mbarrier.MBarrierLayout())
    for each in gl.static_range(number):
        mbarrier.init(barriers.index(each), count=count)
    return barriers


@gluon.jit(
    do_not_specialize=[
        "sequences",
        "query_length",
        "key_length",
        "query_offset",
        "before",
        "after",
        "section",
    ]
)
def flash_gluon_kernel(
    t_q,
    t_k,
    t_v,
    t_out,
    p_lse,
    factor,
    sequences,
    query_heads,
    group,
    query_length,
    key_length,
    query_offset,
    before,
    after,
    section,
    HEAD_DIM: gl.constexpr,
    BLOCK_KEYS: gl.constexpr,
    BOUNDED_BEFORE: gl.constexpr,
    BOUNDED_AFTER: gl.constexpr,
    LIMITED: gl.constexpr,
    STAGES: gl.constexpr,
    num_warps: gl.constexpr,
):
    """Blocks of queries, each of one head of one sequence, as many as there are turns."""
    s_q = gl.allocate_shared_memory(t_q.dtype, [GROUPS, 1, 1, ROWS, HEAD_DIM], t_q.layout)
    s_k = gl.allocate_shared_memory(t_k.dtype, [STAGES, 1, 1, BLOCK_KEYS, HEAD_DIM], t_k.layout)
    s_v = gl.allocate_shared_memory(t_v.dtype, [STAGES, 1, 1, BLOCK_KEYS, HEAD_DIM], t_v.layout)
    s_out = gl.allocate_shared_memory(t_out.dtype, [GROUPS, 1, 1, ROWS, HEAD_DIM], t_out.layout)
    # Full when a copy has come, empty when whoever reads it is done: for q one group, else both.
    q_full, q_empty = barriers_of(GROUPS, 1), barriers_of(GROUPS, 1)
    k_full, k_empty = barriers_of(STAGES, 1), barriers_of(STAGES, GROUPS)
    v_full, v_empty = barriers_of(STAGES, 1), barriers_of(STAGES, GROUPS)
    baton = barriers_of(GROUPS, 1)
    hopper.fence_async_shared()

    sizes = (
        sequences,
        query_heads,
        group,
        query_length,
        key_length,
        query_offset,
        before,
        after,
        section,
    )
    total = gl.cdiv(query_length, BLOCK_QUERIES) * sequences * query_heads
    turns = turns_of(total, gl.program_id(0), gl.num_programs(0))
    memory = (s_q, s_k, s_v)
    barriers = (q_full, q_empty, k_full, k_empty, v_full, v_empty, baton)
    gl.warp_specialize(
        [
            (
                copy_tiles,
                ((t_q, t_k, t_v), memory, barriers, sizes, turns, BOUNDED_BEFORE, BOUNDED_AFTER),
            ),
            (
                attend,
                (
                    t_out,
                    p_lse,
                    memory,
                    s_out,
                    barriers,
                    sizes,
                    turns,
                    factor,
                    0,
                    BOUNDED_BEFORE,
                    BOUNDED_AFTER,
                    LIMITED,
                ),
            ),
            (
                attend,
                (
                    t_out,
                    p_lse,
                    memory,
                    s_out,
                    barriers,
                    sizes,
                    turns,
                    factor,
                    1,
                    BOUNDED_BEFORE,
                    BOUNDED_AFTER,
                    LIMITED,
                ),
            ),
        ],
        [num_warps, num_warps],
        [REGISTERS, REGISTERS],
    )


def launch_flash_gluon(
    q_BHQD: Tensor, k_BGKD: Tensor, v_BGKD: Tensor, rule: FlashRule, config: FlashConfig
) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp, from tensors that `flash_choice.gluon_misfit` finds nothing wrong with.

    Args:
        q_BHQD: `[B, H, Q, D]`, float16 or bfloat16.
        k_BGKD: `[B, G, K, D]`.
        v_BGKD: The same.
        rule: Which keys a query sees.
        config: Keys of a tile, and stages of the two rings; 128 queries and 4 warps a group.

    Returns:
        As `flash_forward.launch_flash_forward`.
    """
    batch, heads, queries, head_dim = q_BHQD.shape
    kv_heads, keys = k_BGKD.shape[1:3]
    assert config.block_queries == BLOCK_QUERIES.value, "two groups of 64 rows"
    # A group keeps the values of a tile until the other has multiplied the keys of the next.
    assert config.num_stages > 1, "with one stage the groups would wait for each other without end"
    out_BHQD = q_BHQD.new_empty(batch, queries, heads, head_dim).transpose(1, 2)
    lse_BHQ = q_BHQD.new_empty(batch, heads, queries, dtype=torch.float32)
    total = batch * heads * triton.cdiv(queries, config.block_queries)
    kernel: Any = flash_gluon_kernel
    with torch.cuda.device_of(q_BHQD):
        kernel[(min(total, multiprocessors(q_BHQD.device)),)](
            _tiles(q_BHQD, ROWS.value),
            _tiles(k_BGKD, config.block_keys),
            _tiles(v_BGKD, config.block_keys),
            _tiles(out_BHQD, ROWS.value),
            lse_BHQ,
            score_factors(rule.scale, None)[0],
            batch,
            heads,
            heads // kv_heads,
            queries,
            keys,
            rule.query_offset,
            rule.before,
            rule.after,
            section_heads(k_BGKD, v_BGKD, heads // kv_heads),
            HEAD_DIM=head_dim,
            BLOCK_KEYS=config.block_keys,
            BOUNDED_BEFORE=rule.bounded_before,
            BOUNDED_AFTER=rule.bounded_after,
            LIMITED=reaches_past(keys, queries, rule, config.block_keys),
            STAGES=config.num_stages,
            num_warps=config.num_warps,
        )
    return out_BHQD, lse_BHQ


def _tiles(tensor: Tensor, rows: int) -> TensorDescriptor:
    """A tensor `[B, heads, N, D]` in tiles of so many rows of one head, for the copy engine."""
    block = [1, 1, rows, tensor.shape[3]]
    element = gl.float16 if tensor.dtype == torch.float16 else gl.bfloat16
    layout = gl.NVMMASharedLayout.get_default_for(block, element)
    return TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), block, layout)
