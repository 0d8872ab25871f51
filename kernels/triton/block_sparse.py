"""Block-sparse attention, forward: a program visits the blocks of keys that its plan lists.

So any pattern runs, and its cost is that of the blocks that hold a visible pair. Full blocks come
first, without a mask; then those that the rule divides, each with a mask of one bit a pair.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim, R distances; in a kernel R rows
(queries of the block), C keys of a block, p_ pointers, b_ blocks, o_ offsets, m_ masks.
"""

from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from attnscope.kernels.call import AttentionCall, AttentionOutput
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.triton.bias import bias_of_head, load_bias
from attnscope.kernels.triton.block_plan import SparseConfig, block_plan, sparse_config
from attnscope.kernels.triton.decode_plan import block_width
from attnscope.kernels.triton.device import is_hopper
from attnscope.kernels.triton.online_softmax import finish, score, start, update
from attnscope.kernels.triton.tiles import load_tile


@triton.jit
def visit_blocks(
    b_out,
    b_total,
    b_highest,
    b_queries,
    p_k,
    p_v,
    p_visible,
    p_bias,
    p_columns,
    p_which,
    p_masks,
    first,
    end,
    first_query,
    query_length,
    key_length,
    k_key,
    k_dim,
    v_key,
    v_dim,
    visible_key,
    scale,
    softcap,
    HEAD_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_VALUE: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    HAS_PADDING: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    DIVIDED: tl.constexpr,
):
    """The online softmax over the blocks listed from `first` to before `end`."""
    o_block = tl.arange(0, BLOCK_KEYS)
    o_dim = tl.arange(0, BLOCK_DIM)
    o_value = tl.arange(0, BLOCK_VALUE)
    o_apart = o_block[None, :] - tl.arange(0, BLOCK_QUERIES)[:, None]
    for index in range(first, end):
        first_key = tl.load(p_columns + index).to(tl.int64) * BLOCK_KEYS
        m_keys = first_key + o_block < key_length
        if HAS_PADDING:
            p_shown = p_visible + first_key * visible_key + o_block * visible_key
            m_keys = m_keys & (tl.load(p_shown, mask=m_keys, other=0) != 0)
        b_keys = load_tile(
            p_k + first_key * k_key + ((o_block * k_key)[None, :] + (o_dim * k_dim)[:, None]),
            m_keys[None, :],
            (o_dim < HEAD_DIM)[:, None],
            DIVIDED or HAS_PADDING,
            HEAD_DIM < BLOCK_DIM,
        )
        b_scores = score(b_queries, b_keys, scale, softcap, HAS_SOFTCAP)
        if HAS_BIAS:
            apart = first_key.to(tl.int32) - first_query
            b_scores += load_bias(p_bias, apart, o_apart, query_length, key_length)
        if DIVIDED or HAS_PADDING:
            b_scores = tl.where(m_keys[None, :], b_scores, float("-inf"))
        if DIVIDED:
            p_words = p_masks + tl.load(p_which + index).to(tl.int64) * BLOCK_QUERIES
            b_words = tl.load(p_words + tl.arange(0, BLOCK_QUERIES))
            m_seen = (b_words[:, None] >> o_block[None, :].to(tl.int64)) & 1
            b_scores = tl.where(m_seen != 0, b_scores, float("-inf"))
        b_values = load_tile(
            p_v + first_key * v_key + ((o_block * v_key)[:, None] + (o_value * v_dim)[None, :]),
            m_keys[:, None],
            (o_value < VALUE_DIM)[None, :],
            DIVIDED or HAS_PADDING,
            VALUE_DIM < BLOCK_VALUE,
        )
        b_out, b_total, b_highest = update(b_out, b_total, b_highest, b_scores, b_values)
    return b_out, b_total, b_highest


@triton.jit(do_not_specialize=["query_length", "key_length"])
def block_sparse_kernel(
    p_q,
    p_k,
    p_v,
    p_sinks,
    p_visible,
    p_bias,
    p_order,
    p_full_starts,
    p_full_columns,
    p_partial_starts,
    p_partial_columns,
    p_partial_masks,
    p_masks,
    p_out,
    p_lse,
    q_batch,
    q_head,
    q_query,
    q_dim,
    k_batch,
    k_head,
    k_key,
    k_dim,
    v_batch,
    v_head,
    v_key,
    v_dim,
    visible_batch,
    visible_key,
    scale,
    softcap,
    batches,
    query_heads,
    group,
    query_length,
    key_length,
    HEAD_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_VALUE: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    HAS_PADDING: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):
    """One block of queries of one head of one sequence; the longest rows of blocks start first."""
    program = tl.program_id(0)
    head = program % query_heads
    batch = (program // query_heads % batches).to(tl.int64)
    row = tl.load(p_order + program // query_heads // batches)
    kv_head = (head // group).to(tl.int64)

    o_queries = row * BLOCK_QUERIES + tl.arange(0, BLOCK_QUERIES)
    m_queries = o_queries < query_length
    o_dim = tl.arange(0, BLOCK_DIM)
    o_value = tl.arange(0, BLOCK_VALUE)
    p_q += batch * q_batch + head.to(tl.int64) * q_head
    b_queries = load_tile(
        p_q + (o_queries.to(tl.int64) * q_query)[:, None] + (o_dim * q_dim)[None, :],
        m_queries[:, None],
        (o_dim < HEAD_DIM)[None, :],
        True,
        HEAD_DIM < BLOCK_DIM,
    )
    o_heads = head + tl.zeros([BLOCK_QUERIES], tl.int32)
    b_out, b_total, b_highest = start(p_sinks, o_heads, m_queries, True, BLOCK_VALUE, HAS_SINKS)
    p_k += batch * k_batch + kv_head * k_head
    p_v += batch * v_batch + kv_head * v_head
    if HAS_PADDING:
        p_visible += batch * visible_batch
    if HAS_BIAS:
        p_bias = bias_of_head(p_bias, head, query_length, key_length)
    for divided in tl.static_range(2):
        p_starts = p_partial_starts if divided else p_full_starts
        p_columns = p_partial_columns if divided else p_full_columns
        b_out, b_total, b_highest = visit_blocks(
            b_out,
            b_total,
            b_highest,
            b_queries,
            p_k,
            p_v,
            p_visible,
            p_bias,
            p_columns,
            p_partial_masks,
            p_masks,
            tl.load(p_starts + row),
            tl.load(p_starts + row + 1),
            row * BLOCK_QUERIES,
            query_length,
            key_length,
            k_key,
            k_dim,
            v_key,
            v_dim,
            visible_key,
            scale,
            softcap,
            HEAD_DIM,
            VALUE_DIM,
            BLOCK_DIM,
            BLOCK_VALUE,
            BLOCK_QUERIES,
            BLOCK_KEYS,
            HAS_PADDING,
            HAS_SOFTCAP,
            HAS_BIAS,
            DIVIDED=divided == 1,
        )

    b_safe, b_lse = finish(b_total, b_highest, 1.0)
    o_rows = (batch * query_heads + head) * query_length + o_queries
    tl.store(p_lse + o_rows, b_lse, mask=m_queries)
    p_tile = p_out + (o_rows * VALUE_DIM)[:, None] + o_value[None, :]
    b_tile = (b_out / b_safe[:, None]).to(p_out.dtype.element_ty)
    tl.store(p_tile, b_tile, mask=m_queries[:, None] & (o_value < VALUE_DIM)[None, :])


def block_sparse(
    q_BHQD: Tensor,
    k_BGKD: Tensor,
    v_BGKD: Tensor,
    call: AttentionCall,
    *,
    sinks_H: Tensor | None = None,
    visible_keys_BK: Tensor | None = None,
    distance_bias_HR: Tensor | None = None,
    config: SparseConfig | None = None,
) -> AttentionOutput:
    """Exact attention over the blocks that hold a visible pair, under any pattern.

    The plan of the blocks is made at the first call of its pattern and lengths, on the CPU, and
    kept. Sums in float32.

    Args:
        q_BHQD: `[B, H, Q, D]`, float32, float16 or bfloat16, any strides.
        k_BGKD: `[B, G, K, D]`, any strides.
        v_BGKD: `[B, G, K, value_dim]`, any strides.
        call: What the tensors are and which pairs are visible.
        sinks_H: One logit a head that joins the denominator; given iff `has_sinks`.
        visible_keys_BK: bool, False where a key is padding; given iff `has_padding`.
        distance_bias_HR: float32 `[H, Q + K − 1]`, see `kernels/distance_bias.py`; given iff
            `has_distance_bias`.
        config: How to cut; `sparse_config` when None.

    Raises:
        InvalidCall: The tensors are not those of the call.
        UnsupportedCall: The pattern has so little structure that its masks would not fit.
    """
    call.check(
        q_BHQD,
        k_BGKD,
        v_BGKD,
        sinks_H=sinks_H,
        visible_keys_BK=visible_keys_BK,
        distance_bias_HR=distance_bias_HR,
    )
    config = config or sparse_config(
        max(call.head_dim, call.value_dim), call.torch_dtype, hopper=is_hopper(q_BHQD.device)
    )
    plan = _plan_on(
        q_BHQD.device,
        call.pattern,
        query_length=call.query_length,
        key_length=call.key_length,
        query_offset=call.query_offset,
        block_queries=config.block_queries,
        block_keys=config.block_keys,
    )
    out_BHQD = q_BHQD.new_empty(*q_BHQD.shape[:3], call.value_dim)
    lse_BHQ = q_BHQD.new_empty(q_BHQD.shape[:3], dtype=torch.float32)
    visible = None if visible_keys_BK is None else visible_keys_BK.view(torch.uint8)
    rows = len(plan[0])
    # Any: a type checker takes a launch for a call of the Python function.
    visit: Any = block_sparse_kernel[(rows * call.batch * call.query_heads,)]
    with torch.cuda.device_of(q_BHQD):
        visit(
            q_BHQD,
            k_BGKD,
            v_BGKD,
            sinks_H,
            visible,
            None if distance_bias_HR is None else distance_bias_HR.contiguous(),
            *plan,
            out_BHQD,
            lse_BHQ,
            *q_BHQD.stride(),
            *k_BGKD.stride(),
            *v_BGKD.stride(),
            *((0, 0) if visible is None else visible.stride()),
            call.scale,
            call.softcap or 1.0,
            call.batch,
            call.query_heads,
            call.group_size,
            call.query_length,
            call.key_length,
            HEAD_DIM=call.head_dim,
            VALUE_DIM=call.value_dim,
            BLOCK_DIM=block_width(call.head_dim),
            BLOCK_VALUE=block_width(call.value_dim),
            BLOCK_QUERIES=config.block_queries,
            BLOCK_KEYS=config.block_keys,
            HAS_SINKS=sinks_H is not None,
            HAS_PADDING=visible is not None,
            HAS_SOFTCAP=call.softcap is not None,
            HAS_BIAS=distance_bias_HR is not None,
            num_warps=config.num_warps,
            num_stages=config.num_stages,
        )
    return AttentionOutput(out_BHQD=out_BHQD, lse_BHQ=lse_BHQ)


@lru_cache(maxsize=16)
def _plan_on(device: torch.device, pattern: Pattern, **lengths: int) -> tuple[Tensor, ...]:
    """The arrays of the plan on this device."""
    plan = block_plan(pattern, **lengths)
    return tuple(torch.from_numpy(array).to(device) for array in plan.arrays)
