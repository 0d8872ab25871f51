"""Flash attention, forward (arXiv 2205.14135, 2307.08691): one program a block of queries of a head.

A program visits the keys that its queries may see: those at the edges of the band, where the rule
divides a tile, apart from those that all its queries see, where nothing is masked. So the work is
proportional to what is visible. Scores and sums are float32; scores are in powers of 2. A tile is as
wide as a power of 2; heads of another width are cut into two, 80 into 64 + 16 (`rest`).

B batch, H query heads, G kv heads, Q queries, K keys, D head dim, R distances; in a kernel R rows
(queries of the block), C keys of a tile, V value dim, p_ pointers, b_ blocks, o_ offsets, m_ masks.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from attnscope.kernels.call import AttentionCall, AttentionOutput
from attnscope.kernels.triton.bias import bias_of_head
from attnscope.kernels.triton.configurations import (
    FlashConfig,
    capability_of,
    forward_config,
    two_widths,
)
from attnscope.kernels.triton.flash_rule import FlashRule, documents_of, flash_rule, key_bounds
from attnscope.kernels.triton.key_parts import key_parts, key_runs
from attnscope.kernels.triton.key_visits import visit_keys
from attnscope.kernels.triton.online_softmax import LN_2, LOWEST, finish, score_factors
from attnscope.kernels.triton.tiles import load_columns, store_columns


@triton.jit(
    do_not_specialize=[
        "query_length",
        "key_length",
        "query_offset",
        "before",
        "after",
        "first_keys",
    ]
)
def flash_forward_kernel(
    p_q,
    p_k,
    p_v,
    p_sinks,
    p_visible,
    p_bounds,
    p_documents,
    p_bias,
    p_out,
    p_lse,
    q_batch,
    q_head,
    q_row,
    q_dim,
    k_batch,
    k_head,
    k_row,
    k_dim,
    v_batch,
    v_head,
    v_row,
    v_dim,
    out_batch,
    out_head,
    out_row,
    visible_batch,
    visible_key,
    factor,
    cap_factor,
    query_heads,
    group,
    query_length,
    key_length,
    query_offset,
    before,
    after,
    first_keys,
    HEAD_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_VALUE: tl.constexpr,
    REST_DIM: tl.constexpr,
    REST_VALUE: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BOUNDED_BEFORE: tl.constexpr,
    BOUNDED_AFTER: tl.constexpr,
    HAS_FIRST_KEYS: tl.constexpr,
    FIRST_KEYS_CAUSAL: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    HAS_PADDING: tl.constexpr,
    HAS_DOCUMENTS: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):
    """One block of queries of one head of one sequence."""
    blocks = tl.cdiv(query_length, BLOCK_QUERIES)
    program = tl.program_id(0)
    # Under a causal rule the last queries see the most keys: they start first.
    first_row = (blocks - 1 - program % blocks) * BLOCK_QUERIES
    head = program // blocks % query_heads
    batch = (program // blocks // query_heads).to(tl.int64)
    kv_head = (head // group).to(tl.int64)

    o_block = tl.arange(0, BLOCK_QUERIES)
    o_rows = first_row + o_block
    m_rows = o_rows < query_length
    p_q += batch * q_batch + head.to(tl.int64) * q_head + first_row.to(tl.int64) * q_row
    p_rows = p_q + o_block * q_row
    b_q = load_columns(p_rows, m_rows, q_dim, 0, BLOCK_DIM, HEAD_DIM, True)
    b_q_rest = b_q
    if REST_DIM > 0:
        b_q_rest = load_columns(p_rows, m_rows, q_dim, BLOCK_DIM, REST_DIM, HEAD_DIM, True)
    p_k += batch * k_batch + kv_head * k_head
    p_v += batch * v_batch + kv_head * v_head

    parts = key_parts(
        p_bounds,
        p_documents,
        batch,
        query_offset + first_row,
        query_offset + tl.minimum(first_row + BLOCK_QUERIES, query_length) - 1,
        key_length,
        before,
        after,
        first_keys,
        BLOCK_KEYS,
        BOUNDED_BEFORE,
        BOUNDED_AFTER,
        FIRST_KEYS_CAUSAL,
        HAS_PADDING,
        HAS_DOCUMENTS,
    )
    first_start, first_end, start, whole_first, whole_last, end = parts
    o_positions = query_offset + o_rows
    o_from, o_to = key_runs(p_documents, o_positions, m_rows, before, after, HAS_DOCUMENTS)
    if HAS_BIAS:
        p_bias = bias_of_head(p_bias, head, query_length, key_length)
    BOUNDED_FROM: tl.constexpr = BOUNDED_BEFORE or HAS_DOCUMENTS
    BOUNDED_TO: tl.constexpr = BOUNDED_AFTER or HAS_DOCUMENTS

    b_out = tl.zeros([BLOCK_QUERIES, BLOCK_VALUE], tl.float32)
    b_out_rest = tl.zeros([BLOCK_QUERIES, REST_VALUE if REST_VALUE > 0 else 16], tl.float32)
    b_total = tl.zeros([BLOCK_QUERIES], tl.float32)
    b_highest = tl.full([BLOCK_QUERIES], LOWEST, tl.float32)
    if HAS_SINKS:
        # A sink is a first key whose value is 0; one of −inf is none.
        sink = tl.maximum(tl.load(p_sinks + head).to(tl.float32) / LN_2, LOWEST)
        b_total += tl.where(sink > LOWEST, 1.0, 0.0)
        b_highest = tl.zeros([BLOCK_QUERIES], tl.float32) + sink
    # The first keys, the left edge of the band, its middle, its right edge.
    for part in tl.static_range(0 if HAS_FIRST_KEYS else 1 if BOUNDED_FROM else 2, 4):
        if part == 0:
            run_start, run_end, limit = first_start, first_end, first_end
        elif part == 1:
            run_start, run_end, limit = start, tl.minimum(whole_first, end), end
        elif part == 2:
            run_start, run_end, limit = whole_first, whole_last, end
        else:
            run_start, run_end, limit = whole_last, end, end
        b_out, b_out_rest, b_total, b_highest = visit_keys(
            b_out,
            b_out_rest,
            b_total,
            b_highest,
            b_q,
            b_q_rest,
            p_k,
            p_v,
            p_visible + batch * visible_batch if HAS_PADDING else p_visible,
            p_bias,
            o_from,
            o_positions if part == 0 else o_to,
            run_start,
            run_end,
            limit,
            k_row,
            k_dim,
            v_row,
            v_dim,
            visible_key,
            factor,
            cap_factor,
            first_row,
            query_length,
            key_length,
            HEAD_DIM,
            VALUE_DIM,
            BLOCK_DIM,
            BLOCK_VALUE,
            REST_DIM,
            REST_VALUE,
            BLOCK_KEYS,
            BOUNDED_FROM and part > 0,
            FIRST_KEYS_CAUSAL if part == 0 else BOUNDED_TO,
            HAS_PADDING,
            HAS_SOFTCAP,
            HAS_BIAS,
            part != 2,
        )

    b_safe, b_lse = finish(b_total, b_highest)
    row = (batch * query_heads + head) * query_length + first_row
    tl.store(p_lse + row + o_block, b_lse, mask=m_rows)
    p_out += batch * out_batch + head.to(tl.int64) * out_head + first_row.to(tl.int64) * out_row
    p_rows = p_out + o_block * out_row
    store_columns(p_rows, b_out / b_safe[:, None], m_rows, 0, BLOCK_VALUE, VALUE_DIM)
    if REST_VALUE > 0:
        b_out_rest = b_out_rest / b_safe[:, None]
        store_columns(p_rows, b_out_rest, m_rows, BLOCK_VALUE, REST_VALUE, VALUE_DIM)


def flash_forward(
    q_BHQD: Tensor,
    k_BGKD: Tensor,
    v_BGKD: Tensor,
    call: AttentionCall,
    *,
    sinks_H: Tensor | None = None,
    visible_keys_BK: Tensor | None = None,
    distance_bias_HR: Tensor | None = None,
    config: FlashConfig | None = None,
) -> AttentionOutput:
    """Attention of a call that has a `FlashRule`, with no n×n matrix; it has no gradient.

    Args:
        q_BHQD: `[B, H, Q, D]`, float32, float16 or bfloat16, any strides.
        k_BGKD: `[B, G, K, D]`, any strides; never repeated for the heads that share it.
        v_BGKD: `[B, G, K, value_dim]`, any strides.
        call: What the tensors are and which pairs are visible; `scale` above 0.
        sinks_H: One logit a head that joins the denominator; given iff `has_sinks`.
        visible_keys_BK: bool, False where a key is padding, anywhere; given iff `has_padding`.
        distance_bias_HR: float32 `[H, Q + K − 1]`, see `kernels/distance_bias.py`; given iff
            `has_distance_bias`.
        config: How to cut; by `forward_config` when None.

    Returns:
        The output, laid out `[B, Q, H, value_dim]` in memory as models want it next, and the
        log-sum-exp in float32.

    Raises:
        InvalidCall: The tensors are not those of the call.
    """
    call.check(
        q_BHQD,
        k_BGKD,
        v_BGKD,
        sinks_H=sinks_H,
        visible_keys_BK=visible_keys_BK,
        distance_bias_HR=distance_bias_HR,
    )
    rule = flash_rule(call)
    assert rule is not None, "the backend refuses other patterns"
    out_BHQD, lse_BHQ = launch_flash_forward(
        q_BHQD,
        k_BGKD,
        v_BGKD,
        sinks_H,
        visible_keys_BK,
        documents_of(call, q_BHQD.device),
        distance_bias_HR,
        rule,
        config,
    )
    return AttentionOutput(out_BHQD=out_BHQD, lse_BHQ=lse_BHQ)


def launch_flash_forward(
    q_BHQD: Tensor,
    k_BGKD: Tensor,
    v_BGKD: Tensor,
    sinks_H: Tensor | None,
    visible_keys_BK: Tensor | None,
    documents_N2: Tensor | None,
    distance_bias_HR: Tensor | None,
    rule: FlashRule,
    config: FlashConfig | None = None,
) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp of `flash_forward`, from tensors that were checked."""
    batch, heads, queries, head_dim = q_BHQD.shape
    value_dim = v_BGKD.shape[3]
    wider = max(head_dim, value_dim)
    config = config or forward_config(
        wider,
        q_BHQD.dtype,
        capability_of(q_BHQD.device),
        bounded_before=rule.bounded_before,
    )
    block_dim, rest_dim = two_widths(head_dim)
    block_value, rest_value = two_widths(value_dim)
    factor, cap_factor = score_factors(rule.scale, rule.softcap)
    seen = visible_keys_BK
    out_BHQD = q_BHQD.new_empty(batch, queries, heads, value_dim).transpose(1, 2)
    lse_BHQ = q_BHQD.new_empty(batch, heads, queries, dtype=torch.float32)
    grid = (batch * heads * triton.cdiv(queries, config.block_queries),)
    kernel: Any = flash_forward_kernel
    with torch.cuda.device_of(q_BHQD):
        kernel[grid](
            q_BHQD,
            k_BGKD,
            v_BGKD,
            sinks_H,
            seen,
            None if seen is None else key_bounds(seen),
            documents_N2,
            None if distance_bias_HR is None else distance_bias_HR.contiguous(),
            out_BHQD,
            lse_BHQ,
            *q_BHQD.stride(),
            *k_BGKD.stride(),
            *v_BGKD.stride(),
            *out_BHQD.stride()[:3],
            *((0, 0) if seen is None else seen.stride()),
            factor,
            cap_factor,
            heads,
            heads // k_BGKD.shape[1],
            queries,
            k_BGKD.shape[2],
            rule.query_offset,
            rule.before,
            rule.after,
            rule.first_keys,
            HEAD_DIM=head_dim,
            VALUE_DIM=value_dim,
            BLOCK_DIM=block_dim,
            BLOCK_VALUE=block_value,
            REST_DIM=rest_dim,
            REST_VALUE=rest_value,
            BLOCK_QUERIES=config.block_queries,
            BLOCK_KEYS=config.block_keys,
            BOUNDED_BEFORE=rule.bounded_before,
            BOUNDED_AFTER=rule.bounded_after,
            HAS_FIRST_KEYS=rule.first_keys > 0,
            FIRST_KEYS_CAUSAL=rule.first_keys_causal,
            HAS_SINKS=sinks_H is not None,
            HAS_PADDING=seen is not None,
            HAS_DOCUMENTS=documents_N2 is not None,
            HAS_SOFTCAP=rule.softcap is not None,
            HAS_BIAS=distance_bias_HR is not None,
            num_warps=config.num_warps,
            num_stages=config.num_stages,
        )
    return out_BHQD, lse_BHQ
