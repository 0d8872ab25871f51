"""Decode: a few queries against many keys, split over the keys so that the whole device reads them.

The query heads that share a kv head, times the queries, are the rows of one tile: each key is read
once. A program visits the keys of one split and leaves its output, total and highest score in
float32; a second kernel combines the splits. Where there is one split, its program finishes its rows
itself. The keys lie in one tensor, or in pages.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim, R distances, S splits; in a kernel R rows,
C keys of a tile, p_ pointers, b_ blocks, o_ offsets, m_ masks.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from attnscope.kernels.call import AttentionCall, AttentionOutput
from attnscope.kernels.patterns.band import band
from attnscope.kernels.triton.bias import bias_of_head
from attnscope.kernels.triton.decode_parts import combine
from attnscope.kernels.triton.decode_plan import (
    MOST_QUERIES,
    block_width,
    decode_config,
    splits,
)
from attnscope.kernels.triton.device import multiprocessors
from attnscope.kernels.triton.online_softmax import finish, score, start, update
from attnscope.kernels.triton.tiles import load_tile


@triton.jit
def keys_of_split(
    query_offset, query_length, key_length, before, after, split, splits, BLOCK_KEYS: tl.constexpr
):
    """The keys that some query sees, from first to before end, and the tiles of this split."""
    first_key = tl.maximum(query_offset - before, 0)
    end_key = tl.minimum(query_offset + query_length + after, key_length)
    first_tile = first_key // BLOCK_KEYS
    end_tile = tl.maximum(tl.cdiv(end_key, BLOCK_KEYS), first_tile)
    each = tl.cdiv(end_tile - first_tile, splits)
    first = first_tile + split * each
    return first_key, end_key, first, tl.minimum(first + each, end_tile)


@triton.jit
def locate(p_table, batch, tile, o_keys, m_keys, BLOCK_KEYS: tl.constexpr, PAGE_SIZE: tl.constexpr):
    """The page and the slot in it of the keys of one tile, in int64."""
    if PAGE_SIZE == 0:
        page = batch
        o_slots = o_keys.to(tl.int64)
    elif PAGE_SIZE % BLOCK_KEYS == 0:
        page = tl.load(p_table + tile * BLOCK_KEYS // PAGE_SIZE).to(tl.int64)
        o_slots = (o_keys % PAGE_SIZE).to(tl.int64)
    else:
        page = tl.load(p_table + o_keys // PAGE_SIZE, mask=m_keys, other=0).to(tl.int64)
        o_slots = (o_keys % PAGE_SIZE).to(tl.int64)
    return page, o_slots


@triton.jit(
    do_not_specialize=["key_length", "query_offset", "before", "after", "splits", "table_stride"]
)
def decode_kernel(
    p_q,
    p_k,
    p_v,
    p_sinks,
    p_visible,
    p_bias,
    p_table,
    p_lengths,
    p_out,
    p_total,
    p_highest,
    q_batch,
    q_head,
    q_query,
    q_dim,
    k_page,
    k_head,
    k_slot,
    k_dim,
    v_page,
    v_head,
    v_slot,
    v_dim,
    visible_batch,
    visible_key,
    table_stride,
    scale,
    softcap,
    kv_heads,
    group,
    query_length,
    key_length,
    query_offset,
    before,
    after,
    splits,
    HEAD_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_VALUE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    HAS_PADDING: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    IS_ALONE: tl.constexpr,
):
    """One split of one block of rows of one kv head of one sequence.

    Writes the parts of its split; IS_ALONE says that there is no other: the output then, and the log-sum-exp as total.

    PAGE_SIZE 0 says that a sequence is one page, its own; `key_length` and `query_offset` are then
    those of every sequence. Otherwise each has its own length, and its last query its last key.
    """
    program = tl.program_id(0)
    blocks = tl.cdiv(group * query_length, ROWS)
    split = program % splits
    block = program // splits % blocks
    kv_head = (program // splits // blocks % kv_heads).to(tl.int64)
    batch = (program // splits // blocks // kv_heads).to(tl.int64)
    longest = key_length
    if PAGE_SIZE > 0:
        key_length = tl.load(p_lengths + batch)
        query_offset = key_length - query_length
        p_table += batch * table_stride

    o_rows = block * ROWS + tl.arange(0, ROWS)
    m_rows = o_rows < group * query_length
    o_heads = kv_head * group + o_rows // query_length
    o_queries = o_rows % query_length
    o_dim = tl.arange(0, BLOCK_DIM)
    o_value = tl.arange(0, BLOCK_VALUE)
    m_dim = o_dim < HEAD_DIM
    m_value = o_value < VALUE_DIM
    o_q = batch * q_batch + o_heads * q_head + o_queries * q_query
    b_queries = tl.load(
        p_q + o_q[:, None] + (o_dim * q_dim)[None, :],
        mask=m_rows[:, None] & m_dim[None, :],
        other=0.0,
    )
    b_out, b_total, b_highest = start(p_sinks, o_heads, m_rows, split == 0, BLOCK_VALUE, HAS_SINKS)

    if HAS_BIAS:
        p_bias = bias_of_head(p_bias, o_heads, query_length, longest)
        p_bias += longest - key_length + query_length - 1 - o_queries
    o_positions = query_offset + o_queries
    first_key, end_key, first_tile, end_tile = keys_of_split(
        query_offset, query_length, key_length, before, after, split, splits, BLOCK_KEYS
    )
    p_k += kv_head * k_head
    p_v += kv_head * v_head
    for tile in range(first_tile, end_tile):
        o_keys = tile * BLOCK_KEYS + tl.arange(0, BLOCK_KEYS)
        # What no query sees may never have been written, and 0 · NaN is NaN: it is not even read.
        m_keys = (o_keys >= first_key) & (o_keys < end_key)
        if HAS_PADDING:
            o_visible = batch * visible_batch + o_keys * visible_key
            m_keys = m_keys & (tl.load(p_visible + o_visible, mask=m_keys, other=0) != 0)
        page, o_slots = locate(p_table, batch, tile, o_keys, m_keys, BLOCK_KEYS, PAGE_SIZE)
        b_keys = tl.load(
            p_k + (page * k_page + o_slots * k_slot)[None, :] + (o_dim * k_dim)[:, None],
            mask=m_keys[None, :] & m_dim[:, None],
            other=0.0,
        )
        b_values = tl.load(
            p_v + (page * v_page + o_slots * v_slot)[:, None] + (o_value * v_dim)[None, :],
            mask=m_keys[:, None] & m_value[None, :],
            other=0.0,
        )
        b_scores = score(b_queries, b_keys, scale, softcap, HAS_SOFTCAP)
        if HAS_BIAS:
            p_tile = p_bias[:, None] + o_keys[None, :]
            b_scores += load_tile(p_tile, m_rows[:, None], m_keys[None, :], True, True)
        m_seen = (o_keys[None, :] >= o_positions[:, None] - before) & m_keys[None, :]
        m_seen = m_seen & (o_keys[None, :] <= o_positions[:, None] + after)
        b_scores = tl.where(m_seen, b_scores, float("-inf"))
        b_out, b_total, b_highest = update(b_out, b_total, b_highest, b_scores, b_values)

    o_parts = batch * kv_heads * group + o_heads
    o_parts = (o_parts * query_length + o_queries) * splits + split
    if IS_ALONE:
        b_safe, b_total = finish(b_total, b_highest, 1.0)
        b_out = b_out / b_safe[:, None]
    else:
        tl.store(p_highest + o_parts, b_highest, mask=m_rows)
    tl.store(p_total + o_parts, b_total, mask=m_rows)
    p_out += o_parts[:, None] * VALUE_DIM + o_value[None, :]
    tl.store(p_out, b_out, mask=m_rows[:, None] & m_value[None, :])


def decode(
    q_BHQD: Tensor,
    k_BGKD: Tensor,
    v_BGKD: Tensor,
    call: AttentionCall,
    *,
    sinks_H: Tensor | None = None,
    visible_keys_BK: Tensor | None = None,
    distance_bias_HR: Tensor | None = None,
    parts: int | None = None,
) -> AttentionOutput:
    """Attention of at most `MOST_QUERIES` queries under a band (full, causal, windows).

    Exact; sums in float32. Keys outside the band and padded ones are not read.

    Args:
        q_BHQD: `[B, H, Q, D]`, float32, float16 or bfloat16, any strides.
        k_BGKD: `[B, G, K, D]`, any strides.
        v_BGKD: `[B, G, K, value_dim]`, any strides.
        call: What the tensors are and which pairs are visible.
        sinks_H: One logit a head that joins the denominator; given iff `has_sinks`.
        visible_keys_BK: bool, False where a key is padding; given iff `has_padding`.
        distance_bias_HR: float32 `[H, Q + K − 1]`, see `kernels/distance_bias.py`; given iff
            `has_distance_bias`.
        parts: Into how many the keys are split; by `splits` when None.

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
    return decode_over(
        q_BHQD,
        KeyStore(k_PGSD=k_BGKD, v_PGSD=v_BGKD),
        call,
        sinks_H=sinks_H,
        visible_keys_BK=visible_keys_BK,
        distance_bias_HR=distance_bias_HR,
        parts=parts,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyStore:
    """Where keys and values lie: in pages, or one page a sequence. P pages, S slots of a page.

    Attributes:
        k_PGSD: `[P, G, S, D]`, any strides.
        v_PGSD: `[P, G, S, value_dim]`, any strides.
        table_BN: int32, the pages of each sequence in order; None where page b is sequence b.
        lengths_B: int32, the keys of each sequence; None where the call says it for all.
    """

    k_PGSD: Tensor
    v_PGSD: Tensor
    table_BN: Tensor | None = None
    lengths_B: Tensor | None = None


def decode_over(
    q_BHQD: Tensor,
    store: KeyStore,
    call: AttentionCall,
    *,
    sinks_H: Tensor | None,
    visible_keys_BK: Tensor | None,
    distance_bias_HR: Tensor | None,
    parts: int | None,
) -> AttentionOutput:
    """`decode` over any key store; `call.key_length` bounds every sequence's length.

    A bias is that of the longest sequence there may be: of its distances a shorter one has the last.
    """
    seen = band(call.pattern)
    assert seen is not None, "the backend refuses what is no band"
    assert call.query_length <= MOST_QUERIES, "the backend refuses more"
    group_rows = call.group_size * call.query_length
    config = decode_config(
        group_rows,
        call.head_dim,
        call.value_dim,
        q_BHQD.dtype,
        paged=store.table_BN is not None,
    )
    programs = call.batch * call.kv_heads * math.ceil(group_rows / config.rows)
    if parts is None:
        keys = seen.keys(call.query_offset, call.query_length, call.key_length)
        tiles = math.ceil(len(keys) / config.block_keys)
        parts = splits(programs, tiles, multiprocessors(q_BHQD.device))
    rows = q_BHQD.shape[:3]
    out_BHQD = q_BHQD.new_empty(*rows, call.value_dim)
    lse_BHQ = q_BHQD.new_empty(rows, dtype=torch.float32)
    part_out, part_total, part_highest = out_BHQD, lse_BHQ, None
    if parts > 1:
        part_out = q_BHQD.new_empty(*rows, parts, call.value_dim, dtype=torch.float32)
        part_total, part_highest = q_BHQD.new_empty(2, *rows, parts, dtype=torch.float32)
    visible = None if visible_keys_BK is None else visible_keys_BK.view(torch.uint8)
    # Any: a type checker takes a launch for a call of the Python function.
    split: Any = decode_kernel[(programs * parts,)]
    with torch.cuda.device_of(q_BHQD):
        split(
            q_BHQD,
            store.k_PGSD,
            store.v_PGSD,
            sinks_H,
            visible,
            None if distance_bias_HR is None else distance_bias_HR.contiguous(),
            store.table_BN,
            store.lengths_B,
            part_out,
            part_total,
            part_highest,
            *q_BHQD.stride(),
            *store.k_PGSD.stride(),
            *store.v_PGSD.stride(),
            *((0, 0) if visible is None else visible.stride()),
            0 if store.table_BN is None else store.table_BN.stride(0),
            call.scale,
            call.softcap or 1.0,
            call.kv_heads,
            call.group_size,
            call.query_length,
            call.key_length,
            call.query_offset,
            seen.before,
            seen.after,
            parts,
            HEAD_DIM=call.head_dim,
            VALUE_DIM=call.value_dim,
            BLOCK_DIM=block_width(call.head_dim),
            BLOCK_VALUE=block_width(call.value_dim),
            ROWS=config.rows,
            BLOCK_KEYS=config.block_keys,
            PAGE_SIZE=0 if store.table_BN is None else store.k_PGSD.shape[2],
            HAS_SINKS=sinks_H is not None,
            HAS_PADDING=visible is not None,
            HAS_SOFTCAP=call.softcap is not None,
            HAS_BIAS=distance_bias_HR is not None,
            IS_ALONE=parts == 1,
            num_warps=config.num_warps,
            num_stages=config.num_stages,
        )
        if part_highest is not None:
            combine(part_out, part_total, part_highest, out_BHQD, lse_BHQ)
    return AttentionOutput(out_BHQD=out_BHQD, lse_BHQ=lse_BHQ)
