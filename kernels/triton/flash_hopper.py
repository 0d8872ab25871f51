"""Flash attention, forward, as Hopper's chips do it best (arXiv 2407.08608): tiles come by bulk copies.

The copy engine (TMA) brings whole tiles of keys and values and fills with zeros what lies outside,
so no warp computes addresses. A program takes blocks of queries one after the other, the longest
first. Over their keys it goes in one of two ways: in one loop that masks every tile, its copies
and its products in warps of their own (warp specialisation, which Triton builds for one loop only);
or in up to three, like the portable kernel (`flash_forward`), masking only where the rule divides a
tile. What it does not take, `flash_choice` gives to the portable kernel.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim; in a kernel R rows (queries of
the block), C keys of a tile, p_ pointers, t_ tensor descriptors, b_ blocks, o_ offsets, m_ masks.
"""

from contextvars import copy_context
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from attnscope.kernels.triton.configurations import HopperConfig, block_width
from attnscope.kernels.triton.device import multiprocessors
from attnscope.kernels.triton.flash_rule import FlashRule, key_bounds, reaches_past
from attnscope.kernels.triton.key_parts import key_parts
from attnscope.kernels.triton.online_softmax import (
    LN_2,
    LOWEST,
    finish,
    score_factors,
    tanh,
    weigh,
)
from attnscope.kernels.triton.work_order import place_of, section_heads, turns_of, work_at


@triton.jit
def visit_tiles(
    b_out,
    b_total,
    b_highest,
    b_q,
    t_k,
    t_v,
    p_visible,
    batch,
    kv_head,
    o_positions,
    first,
    last,
    end,
    visible_key,
    factor,
    cap_factor,
    before,
    after,
    BLOCK_DIM: tl.constexpr,
    BLOCK_VALUE: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BOUNDED_BEFORE: tl.constexpr,
    BOUNDED_AFTER: tl.constexpr,
    LIMITED: tl.constexpr,
    HAS_PADDING: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    SPECIALIZED: tl.constexpr,
    NUM_STAGES: tl.constexpr,
):
    """The online softmax over the tiles from key `first` to `last`, by the parts of the rule asked for.

    LIMITED where a tile may reach past `end`: what comes from there are zeros, and is hidden.
    """
    # Typed as what Python itself never iterates over.
    for tile in tl.range(  # pyright: ignore[reportGeneralTypeIssues]
        first,
        last,
        BLOCK_KEYS,
        num_stages=NUM_STAGES,
        warp_specialize=SPECIALIZED,  # pyright: ignore[reportArgumentType]
    ):
        o_keys = tile + tl.arange(0, BLOCK_KEYS)
        b_k = t_k.load([batch, kv_head, tile, 0]).reshape(BLOCK_KEYS, BLOCK_DIM)
        b_scores = tl.dot(b_q, b_k.T)
        unit = factor
        if HAS_SOFTCAP:
            b_scores = tanh(b_scores * factor)
            unit = cap_factor
        m_keys = o_keys < end
        if HAS_PADDING:
            p_tile = p_visible + o_keys.to(tl.int64) * visible_key
            m_keys = m_keys & (tl.load(p_tile, mask=m_keys, other=0) != 0)
        if LIMITED:
            b_scores = tl.where(m_keys[None, :], b_scores, float("-inf"))
        if BOUNDED_BEFORE:
            m_seen = o_keys[None, :] >= o_positions[:, None] - before
            b_scores = tl.where(m_seen, b_scores, float("-inf"))
        if BOUNDED_AFTER:
            m_seen = o_keys[None, :] <= o_positions[:, None] + after
            b_scores = tl.where(m_seen, b_scores, float("-inf"))
        state = weigh(b_total, b_highest, b_scores, unit)
        b_weights, b_shrink, b_total, b_highest = state
        b_v = t_v.load([batch, kv_head, tile, 0]).reshape(BLOCK_KEYS, BLOCK_VALUE)
        if HAS_PADDING:
            # What is hidden between visible keys may never have been written, and 0 · NaN is NaN.
            b_v = tl.where(m_keys[:, None], b_v, 0.0)
        b_out = tl.dot(b_weights.to(b_v.dtype), b_v, b_out * b_shrink[:, None])
    return b_out, b_total, b_highest


@triton.jit(
    do_not_specialize=[
        "batches",
        "query_length",
        "key_length",
        "query_offset",
        "before",
        "after",
        "section",
    ]
)
def flash_hopper_kernel(
    p_q,
    p_k,
    p_v,
    p_sinks,
    p_visible,
    p_bounds,
    p_out,
    p_lse,
    q_batch,
    q_head,
    q_row,
    k_batch,
    k_head,
    k_row,
    v_batch,
    v_head,
    v_row,
    out_batch,
    out_head,
    out_row,
    visible_batch,
    visible_key,
    factor,
    cap_factor,
    batches,
    query_heads,
    group,
    query_length,
    key_length,
    query_offset,
    before,
    after,
    section,
    HEAD_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_VALUE: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BOUNDED_BEFORE: tl.constexpr,
    BOUNDED_AFTER: tl.constexpr,
    LIMITED: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    HAS_PADDING: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    SPECIALIZED: tl.constexpr,
    NUM_STAGES: tl.constexpr,
):
    """Blocks of queries, each of one head of one sequence, as many as there are turns."""
    kv_heads = query_heads // group
    heads = batches * query_heads
    blocks = tl.cdiv(query_length, BLOCK_QUERIES)
    program, programs = tl.program_id(0), tl.num_programs(0)
    k_shape = [batches, kv_heads, key_length, HEAD_DIM]
    v_shape = [batches, kv_heads, key_length, VALUE_DIM]
    t_k = tl.make_tensor_descriptor(
        p_k, k_shape, [k_batch, k_head, k_row, 1], [1, 1, BLOCK_KEYS, BLOCK_DIM]
    )
    t_v = tl.make_tensor_descriptor(
        p_v, v_shape, [v_batch, v_head, v_row, 1], [1, 1, BLOCK_KEYS, BLOCK_VALUE]
    )
    turns = turns_of(blocks * heads, program, programs)
    for turn in tl.range(0, turns, num_stages=1):
        place = place_of(turn, program, programs)
        work = work_at(place, blocks, heads, section)
        block, flat_head = work
        batch = flat_head // query_heads
        head = flat_head % query_heads
        kv_head = head // group
        first_row = block * BLOCK_QUERIES
        o_rows = first_row + tl.arange(0, BLOCK_QUERIES)

        # Two dimensions, and so one a head: Triton divides the rows of no more between warp groups.
        p_block = p_q + batch.to(tl.int64) * q_batch + head.to(tl.int64) * q_head
        t_q = tl.make_tensor_descriptor(
            p_block, [query_length, HEAD_DIM], [q_row, 1], [BLOCK_QUERIES, BLOCK_DIM]
        )
        p_block = p_out + batch.to(tl.int64) * out_batch + head.to(tl.int64) * out_head
        t_out = tl.make_tensor_descriptor(
            p_block, [query_length, VALUE_DIM], [out_row, 1], [BLOCK_QUERIES, BLOCK_VALUE]
        )
        b_q = t_q.load([first_row, 0])
        parts = key_parts(
            p_bounds,
            None,
            batch.to(tl.int64),
            query_offset + first_row,
            query_offset + tl.minimum(first_row + BLOCK_QUERIES, query_length) - 1,
            key_length,
            before,
            after,
            0,
            BLOCK_KEYS,
            BOUNDED_BEFORE,
            BOUNDED_AFTER,
            False,
            HAS_PADDING,
            False,
        )
        _first_start, _first_end, start, whole_first, whole_last, end = parts
        if HAS_PADDING:
            # The tensors end where the sequence does: beyond may never have been written.
            t_k = tl.make_tensor_descriptor(
                p_k,
                [batches, kv_heads, end, HEAD_DIM],
                [k_batch, k_head, k_row, 1],
                [1, 1, BLOCK_KEYS, BLOCK_DIM],
            )
            t_v = tl.make_tensor_descriptor(
                p_v,
                [batches, kv_heads, end, VALUE_DIM],
                [v_batch, v_head, v_row, 1],
                [1, 1, BLOCK_KEYS, BLOCK_VALUE],
            )

        b_out = tl.zeros([BLOCK_QUERIES, BLOCK_VALUE], tl.float32)
        b_total = tl.zeros([BLOCK_QUERIES], tl.float32)
        b_highest = tl.full([BLOCK_QUERIES], LOWEST, tl.float32)
        if HAS_SINKS:
            # A sink is a first key whose value is 0; one of −inf is none.
            sink = tl.maximum(tl.load(p_sinks + head).to(tl.float32) / LN_2, LOWEST)
            b_total += tl.where(sink > LOWEST, 1.0, 0.0)
            b_highest = tl.zeros([BLOCK_QUERIES], tl.float32) + sink
        # One loop over all; or the left edge of the band, its middle, its right edge.
        FIRST_PART: tl.constexpr = 0 if SPECIALIZED else 1 if BOUNDED_BEFORE else 2
        PARTS: tl.constexpr = 1 if SPECIALIZED else 4 if BOUNDED_AFTER or LIMITED else 3
        for part in tl.static_range(FIRST_PART, PARTS):
            if part == 0:
                run_start, run_end = start, end
            elif part == 1:
                run_start, run_end = start, tl.minimum(whole_first, end)
            elif part == 2:
                run_start, run_end = whole_first, whole_last
            else:
                run_start, run_end = whole_last, end
            b_out, b_total, b_highest = visit_tiles(
                b_out,
                b_total,
                b_highest,
                b_q,
                t_k,
                t_v,
                p_visible + batch.to(tl.int64) * visible_batch if HAS_PADDING else p_visible,
                batch,
                kv_head,
                query_offset + o_rows,
                run_start,
                run_end,
                end,
                visible_key,
                factor,
                cap_factor,
                before,
                after,
                BLOCK_DIM,
                BLOCK_VALUE,
                BLOCK_KEYS,
                BOUNDED_BEFORE and part != 2,
                BOUNDED_AFTER and part != 2,
                LIMITED if part == 0 else part != 2,
                HAS_PADDING and part != 2,
                HAS_SOFTCAP,
                SPECIALIZED,
                NUM_STAGES,
            )

        b_safe, b_lse = finish(b_total, b_highest)
        p_row = p_lse + flat_head.to(tl.int64) * query_length
        tl.store(p_row + o_rows, b_lse, mask=o_rows < query_length)
        t_out.store([first_row, 0], (b_out / b_safe[:, None]).to(p_out.dtype.element_ty))


def launch_flash_hopper(
    q_BHQD: Tensor,
    k_BGKD: Tensor,
    v_BGKD: Tensor,
    sinks_H: Tensor | None,
    visible_keys_BK: Tensor | None,
    rule: FlashRule,
    config: HopperConfig,
) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp, from tensors that `flash_choice.misfit` finds nothing wrong with.

    Args:
        q_BHQD: `[B, H, Q, D]`, float16 or bfloat16.
        k_BGKD: `[B, G, K, D]`.
        v_BGKD: `[B, G, K, value_dim]`.
        sinks_H: One logit a head, or None.
        visible_keys_BK: bool, False where a key is padding, or None.
        rule: Which keys a query sees.
        config: How to cut.

    Returns:
        As `flash_forward.launch_flash_forward`.
    """
    batch, heads, queries, head_dim = q_BHQD.shape
    kv_heads, keys, value_dim = v_BGKD.shape[1:]
    factor, cap_factor = score_factors(rule.scale, rule.softcap)
    seen = visible_keys_BK
    assert seen is None or not config.specialized, "padding is masked in loops of its own"
    out_BHQD = q_BHQD.new_empty(batch, queries, heads, value_dim).transpose(1, 2)
    lse_BHQ = q_BHQD.new_empty(batch, heads, queries, dtype=torch.float32)
    total = batch * heads * triton.cdiv(queries, config.block_queries)
    programs = min(total, multiprocessors(q_BHQD.device)) if config.persistent else total
    kernel: Any = flash_hopper_kernel

    def launch() -> None:
        triton.set_allocator(_workspace)
        kernel[(programs,)](
            q_BHQD,
            k_BGKD,
            v_BGKD,
            sinks_H,
            seen,
            None if seen is None else key_bounds(seen),
            out_BHQD,
            lse_BHQ,
            *q_BHQD.stride()[:3],
            *k_BGKD.stride()[:3],
            *v_BGKD.stride()[:3],
            *out_BHQD.stride()[:3],
            *((0, 0) if seen is None else seen.stride()),
            factor,
            cap_factor,
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
            VALUE_DIM=value_dim,
            BLOCK_DIM=block_width(head_dim),
            BLOCK_VALUE=block_width(value_dim),
            BLOCK_QUERIES=config.block_queries,
            BLOCK_KEYS=config.block_keys,
            BOUNDED_BEFORE=rule.bounded_before,
            BOUNDED_AFTER=rule.bounded_after,
            LIMITED=seen is not None or reaches_past(keys, queries, rule, config.block_keys),
            HAS_SINKS=sinks_H is not None,
            HAS_PADDING=seen is not None,
            HAS_SOFTCAP=rule.softcap is not None,
            SPECIALIZED=config.specialized,
            NUM_STAGES=config.num_stages,
            num_warps=config.num_warps,
        )

    # Descriptors made on the device need memory there. Whose allocator is set is nobody else's
    # concern: it is, in a copy of the context that ends with the launch.
    with torch.cuda.device_of(q_BHQD):
        copy_context().run(launch)
    return out_BHQD, lse_BHQ


def _workspace(size: int, alignment: int, stream: int | None) -> Tensor:
    """Memory for the descriptors of all programs, of the current device and stream."""
    del alignment, stream  # PyTorch's blocks are aligned to 512 bytes, and on the current stream.
    return torch.empty(size, dtype=torch.int8, device="cuda")
