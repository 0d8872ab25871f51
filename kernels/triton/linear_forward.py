"""Linear attention, forward (arXiv 2006.16236): weights φ(q)·φ(k), summed over chunks of keys.

Three kernels, so that a long sequence runs on the whole device: the state of each chunk, Σ φ(k) vᵀ
and Σ φ(k); the states of everything up to each chunk's end; and the answers, a block of queries a
program, from the state of the chunks before and, pair by pair, the keys of the block's own. φ is
elu + 1, made inside the kernels, or q and k are features already.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim, F features, V value dim, N chunks;
in a kernel p_ pointers, b_ blocks, o_ offsets, m_ masks.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from attnscope.kernels.triton.configurations import block_width
from attnscope.kernels.triton.linear_plan import LinearConfig, linear_config

_STATES_TOGETHER, _STATE_NUMBERS = 16, 256


@triton.jit
def feature_map(b_x, m_x, ELU: tl.constexpr):
    """φ in float32, 0 where there is no key, no query or no feature: elu(0) + 1 would be 1."""
    b_x = b_x.to(tl.float32)
    if ELU:
        b_x = tl.maximum(b_x, 0.0) + tl.exp(tl.minimum(b_x, 0.0))
    return tl.where(m_x, b_x, 0.0)


@triton.jit
def shown_keys(p_visible, start, o_tile, end, visible_key, HAS_PADDING: tl.constexpr):
    """Which keys of a tile are read at all: 0 · NaN is NaN, so what is hidden is not."""
    m_keys = start + o_tile < end
    if HAS_PADDING:
        p_shown = p_visible + start * visible_key + o_tile * visible_key
        m_keys = m_keys & (tl.load(p_shown, mask=m_keys, other=0) != 0)
    return m_keys


@triton.jit(do_not_specialize=["key_length", "chunks"])
def chunk_state_kernel(
    p_k,
    p_v,
    p_visible,
    p_state,
    p_norm,
    k_batch,
    k_head,
    k_row,
    k_dim,
    v_batch,
    v_head,
    v_row,
    v_dim,
    visible_batch,
    visible_key,
    kv_heads,
    key_length,
    chunks,
    FEATURES: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    BLOCK_FEATURES: tl.constexpr,
    BLOCK_VALUES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    CHUNK: tl.constexpr,
    ELU: tl.constexpr,
    HAS_PADDING: tl.constexpr,
):
    """Σ φ(k) vᵀ and Σ φ(k) over one chunk of one kv head: a block of features, one of values."""
    program = tl.program_id(0)
    chunk = program % chunks
    kv_head = (program // chunks % kv_heads).to(tl.int64)
    batch = (program // chunks // kv_heads).to(tl.int64)
    o_features = tl.program_id(1) * BLOCK_FEATURES + tl.arange(0, BLOCK_FEATURES)
    o_values = tl.program_id(2) * BLOCK_VALUES + tl.arange(0, BLOCK_VALUES)
    m_features = (o_features < FEATURES)[:, None]
    m_values = (o_values < VALUE_DIM)[None, :]
    p_k += batch * k_batch + kv_head * k_head
    p_v += batch * v_batch + kv_head * v_head
    if HAS_PADDING:
        p_visible += batch * visible_batch

    b_state = tl.zeros([BLOCK_FEATURES, BLOCK_VALUES], tl.float32)
    b_norm = tl.zeros([BLOCK_FEATURES], tl.float32)
    o_tile = tl.arange(0, BLOCK_KEYS)
    first = chunk * CHUNK
    for start in range(first, tl.minimum(first + CHUNK, key_length), BLOCK_KEYS):
        row = tl.cast(start, tl.int64)
        m_keys = shown_keys(p_visible, row, o_tile, key_length, visible_key, HAS_PADDING)
        p_tile = p_k + row * k_row + (o_tile * k_row)[None, :] + (o_features * k_dim)[:, None]
        m_k = m_keys[None, :] & m_features
        b_k = feature_map(tl.load(p_tile, mask=m_k, other=0.0), m_k, ELU)
        p_tile = p_v + row * v_row + (o_tile * v_row)[:, None] + (o_values * v_dim)[None, :]
        b_v = tl.load(p_tile, mask=m_keys[:, None] & m_values, other=0.0)
        b_k = b_k.to(b_v.dtype)
        b_norm += tl.sum(b_k.to(tl.float32), 1)
        b_state = tl.dot(b_k, b_v, b_state, input_precision="ieee")

    state = (batch * kv_heads + kv_head) * chunks + chunk
    o_state = (state * FEATURES + o_features)[:, None] * VALUE_DIM + o_values[None, :]
    tl.store(p_state + o_state, b_state, mask=m_features & m_values)
    if tl.program_id(2) == 0:
        o_norm = state * FEATURES + o_features
        tl.store(p_norm + o_norm, b_norm, mask=o_features < FEATURES)


@triton.jit(do_not_specialize=["chunks"])
def mean_state_kernel(
    p_state,
    p_mean,
    chunks,
    numbers,
    CHUNK: tl.constexpr,
    TOGETHER: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The mean over the keys up to the end of each chunk: some numbers of all states of one head.

    A mean, so that its dtype's range holds it at any length. The last chunk counts as whole.
    """
    o_numbers = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    head = tl.program_id(0).to(tl.int64) * chunks * numbers
    b_before = tl.zeros([BLOCK], tl.float32)
    for first in range(0, chunks, TOGETHER):
        o_chunks = first + tl.arange(0, TOGETHER)
        m_tile = (o_chunks < chunks)[:, None] & (o_numbers < numbers)[None, :]
        o_tile = head + (o_chunks.to(tl.int64) * numbers)[:, None] + o_numbers[None, :]
        b_states = tl.load(p_state + o_tile, mask=m_tile, other=0.0)
        b_sums = tl.cumsum(b_states, 0) + b_before[None, :]
        b_means = b_sums / ((o_chunks + 1) * CHUNK).to(tl.float32)[:, None]
        tl.store(p_mean + o_tile, b_means.to(p_mean.dtype.element_ty), mask=m_tile)
        b_before += tl.sum(b_states, 0)


@triton.jit(do_not_specialize=["query_length", "key_length", "query_offset", "chunks"])
def linear_answer_kernel(
    p_q,
    p_k,
    p_v,
    p_visible,
    p_state,
    p_norm,
    p_out,
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
    query_heads,
    group,
    query_length,
    key_length,
    query_offset,
    chunks,
    FEATURES: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    ALL_FEATURES: tl.constexpr,
    BLOCK_VALUES: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    CHUNK: tl.constexpr,
    CAUSAL: tl.constexpr,
    ELU: tl.constexpr,
    HAS_PADDING: tl.constexpr,
):
    """One block of queries of one head, for a block of the values' columns."""
    blocks = tl.cdiv(query_length, BLOCK_QUERIES)
    program = tl.program_id(0)
    first_row = program % blocks * BLOCK_QUERIES
    head = program // blocks % query_heads
    batch = (program // blocks // query_heads).to(tl.int64)
    kv_head = (head // group).to(tl.int64)
    kv_heads = query_heads // group

    o_block = tl.arange(0, BLOCK_QUERIES)
    o_rows = first_row + o_block
    m_rows = (o_rows < query_length)[:, None]
    o_features = tl.arange(0, ALL_FEATURES)
    m_features = o_features < FEATURES
    o_values = tl.program_id(1) * BLOCK_VALUES + tl.arange(0, BLOCK_VALUES)
    m_values = (o_values < VALUE_DIM)[None, :]
    p_q += batch * q_batch + head.to(tl.int64) * q_head + first_row.to(tl.int64) * q_row
    p_tile = p_q + (o_block * q_row)[:, None] + (o_features * q_dim)[None, :]
    m_q = m_rows & m_features[None, :]
    b_q = feature_map(tl.load(p_tile, mask=m_q, other=0.0), m_q, ELU)
    # The quotient forgets a factor of the row's: with features that total 1, a weight is a mean of
    # the key's features, and 16 bits hold it.
    b_total = tl.sum(b_q, 1)
    b_q = (b_q / tl.where(b_total == 0.0, 1.0, b_total)[:, None]).to(p_v.dtype.element_ty)

    b_out = tl.zeros([BLOCK_QUERIES, BLOCK_VALUES], tl.float32)
    b_total = tl.zeros([BLOCK_QUERIES], tl.float32)
    # The chunks that every query of the block sees whole.
    before = chunks
    if CAUSAL:
        before = tl.minimum((query_offset + first_row) // CHUNK, chunks)
    if before > 0:
        keys = (before * CHUNK).to(tl.float32)
        state = ((batch * kv_heads + kv_head) * chunks + before - 1) * FEATURES + o_features
        b_norm = tl.load(p_norm + state, mask=m_features, other=0.0)
        b_total = tl.sum(b_q.to(tl.float32) * b_norm[None, :], 1) * keys
        p_means = p_state + (state * VALUE_DIM)[:, None] + o_values[None, :]
        b_state = tl.load(p_means, mask=m_features[:, None] & m_values, other=0.0)
        b_out = tl.dot(b_q, b_state, input_precision="ieee") * keys
    if CAUSAL:
        p_k += batch * k_batch + kv_head * k_head
        p_v += batch * v_batch + kv_head * v_head
        if HAS_PADDING:
            p_visible += batch * visible_batch
        o_positions = query_offset + o_rows
        o_tile = tl.arange(0, BLOCK_KEYS)
        end_row = tl.minimum(first_row + BLOCK_QUERIES, query_length)
        end = tl.minimum(query_offset + end_row, key_length)
        for start in range(before * CHUNK, end, BLOCK_KEYS):
            row = tl.cast(start, tl.int64)
            m_keys = shown_keys(p_visible, row, o_tile, end, visible_key, HAS_PADDING)
            p_k_tile = p_k + row * k_row + (o_tile * k_row)[None, :] + (o_features * k_dim)[:, None]
            m_k = m_keys[None, :] & m_features[:, None]
            b_k = feature_map(tl.load(p_k_tile, mask=m_k, other=0.0), m_k, ELU).to(b_q.dtype)
            b_weights = tl.dot(b_q, b_k, input_precision="ieee")
            m_seen = start + o_tile[None, :] <= o_positions[:, None]
            b_weights = tl.where(m_seen, b_weights, 0.0)
            b_total += tl.sum(b_weights, 1)
            p_v_tile = p_v + row * v_row + (o_tile * v_row)[:, None] + (o_values * v_dim)[None, :]
            b_v = tl.load(p_v_tile, mask=m_keys[:, None] & m_values, other=0.0)
            b_out = tl.dot(b_weights.to(b_v.dtype), b_v, b_out, input_precision="ieee")

    b_out = b_out / tl.where(b_total == 0.0, 1.0, b_total)[:, None]
    p_out += batch * out_batch + head.to(tl.int64) * out_head + first_row.to(tl.int64) * out_row
    p_answer = p_out + (o_block * out_row)[:, None] + o_values[None, :]
    tl.store(p_answer, b_out.to(p_out.dtype.element_ty), mask=m_rows & m_values)


def linear_forward(
    q_BHQF: Tensor,
    k_BGKF: Tensor,
    v_BGKV: Tensor,
    *,
    elu: bool,
    causal: bool,
    query_offset: int = 0,
    visible_keys_BK: Tensor | None = None,
    config: LinearConfig | None = None,
) -> Tensor:
    """out_i = Σ_j φ(q_i)·φ(k_j) v_j / Σ_j φ(q_i)·φ(k_j); it has no gradient.

    Sums in float32; features, weights and the states that queries read are rounded to the dtype of
    `v_BGKV`, in float16 to its range: a mean of φ(k) v over the keys must be under 65 504.

    Args:
        q_BHQF: `[B, H, Q, F]`, queries or their features, float32, float16 or bfloat16, any strides.
        k_BGKF: `[B, G, K, F]`, keys or their features; never repeated for the heads that share them.
        v_BGKV: `[B, G, K, V]`.
        elu: Whether φ is elu + 1 of q and k; otherwise they are features, 0 or more.
        causal: Whether a query sees only the keys up to its own position; otherwise all.
        query_offset: Absolute position of the first query.
        visible_keys_BK: bool, False where a key is padding; it is not read.
        config: How to cut; by `linear_config` when None.

    Returns:
        `[B, H, Q, V]`, laid out `[B, Q, H, V]` in memory as models want it next; 0 in a row that
        sees nothing.
    """
    batch, heads, queries, features = q_BHQF.shape
    kv_heads, keys, value_dim = v_BGKV.shape[1:]
    config = config or linear_config(features, value_dim, v_BGKV.dtype)
    out_BHQV = v_BGKV.new_empty(batch, queries, heads, value_dim).transpose(1, 2)
    seen = visible_keys_BK
    chunks = math.ceil(keys / config.chunk)
    if causal:
        # A chunk that no query sees whole is read pair by pair.
        chunks = min(chunks, (query_offset + queries - 1) // config.chunk)
    # Any: a type checker takes a launch for a call of the Python function.
    answer: Any = linear_answer_kernel
    with torch.cuda.device_of(q_BHQF):
        state, norm = _states(k_BGKF, v_BGKV, seen, chunks, elu, config)
        answer[
            batch * heads * triton.cdiv(queries, config.block_queries),
            triton.cdiv(value_dim, config.block_values),
        ](
            q_BHQF,
            k_BGKF,
            v_BGKV,
            seen,
            state,
            norm,
            out_BHQV,
            *q_BHQF.stride(),
            *k_BGKF.stride(),
            *v_BGKV.stride(),
            *out_BHQV.stride()[:3],
            *((0, 0) if seen is None else seen.stride()),
            heads,
            heads // kv_heads,
            queries,
            keys,
            query_offset,
            chunks,
            FEATURES=features,
            VALUE_DIM=value_dim,
            ALL_FEATURES=block_width(features),
            BLOCK_VALUES=config.block_values,
            BLOCK_QUERIES=config.block_queries,
            BLOCK_KEYS=config.block_keys,
            CHUNK=config.chunk,
            CAUSAL=causal,
            ELU=elu,
            HAS_PADDING=seen is not None,
            num_warps=config.num_warps,
            num_stages=config.num_stages,
        )
    return out_BHQV


def _states(
    k_BGKF: Tensor,
    v_BGKV: Tensor,
    seen_BK: Tensor | None,
    chunks: int,
    elu: bool,
    config: LinearConfig,
) -> tuple[Tensor, Tensor]:
    """Means of φ(k) vᵀ, `[B, G, N, F, V]`, and of φ(k), `[B, G, N, F]`, up to each chunk's end."""
    batch, kv_heads, keys, features = k_BGKF.shape
    value_dim = v_BGKV.shape[3]
    shape = (batch, kv_heads, chunks, features)
    state = v_BGKV.new_empty(*shape, value_dim, dtype=torch.float32)
    norm = v_BGKV.new_empty(shape, dtype=torch.float32)
    # What queries multiply on matrix units is in their dtype; the normaliser is not.
    mean_state, mean_norm = torch.empty_like(state, dtype=v_BGKV.dtype), torch.empty_like(norm)
    if chunks == 0:
        return mean_state, mean_norm
    of_chunks: Any = chunk_state_kernel
    of_chunks[
        batch * kv_heads * chunks,
        triton.cdiv(features, config.block_features),
        triton.cdiv(value_dim, config.block_values),
    ](
        k_BGKF,
        v_BGKV,
        seen_BK,
        state,
        norm,
        *k_BGKF.stride(),
        *v_BGKV.stride(),
        *((0, 0) if seen_BK is None else seen_BK.stride()),
        kv_heads,
        keys,
        chunks,
        FEATURES=features,
        VALUE_DIM=value_dim,
        BLOCK_FEATURES=config.block_features,
        BLOCK_VALUES=config.block_values,
        BLOCK_KEYS=config.block_keys,
        CHUNK=config.chunk,
        ELU=elu,
        HAS_PADDING=seen_BK is not None,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )
    mean: Any = mean_state_kernel
    for sums, means in ((state, mean_state), (norm, mean_norm)):
        numbers = sums[0, 0, 0].numel()
        mean[batch * kv_heads, triton.cdiv(numbers, _STATE_NUMBERS)](
            sums,
            means,
            chunks,
            numbers,
            CHUNK=config.chunk,
            TOGETHER=_STATES_TOGETHER,
            BLOCK=_STATE_NUMBERS,
        )
    return mean_state, mean_norm
