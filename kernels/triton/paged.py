"""Decode over a paged key cache: each sequence's keys lie in pages that a table lists.

The kernel is that of `decode`; only where a key lies differs. So sequences of unequal lengths share
one pool and one launch, and nothing is gathered first (PagedAttention, arXiv 2309.06180 §4).

B batch, H query heads, G kv heads, Q queries, D head dim, R distances; P pages of the pool, S slots of a page,
N pages that a sequence's row of the table can list.
"""

import torch
from torch import Tensor

from attnscope.kernels import distance_bias
from attnscope.kernels.call import AttentionCall, AttentionOutput
from attnscope.kernels.errors import InvalidCall, UnsupportedCall
from attnscope.kernels.patterns.band import band
from attnscope.kernels.patterns.causal import Causal
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.triton.decode import KeyStore, decode_over
from attnscope.kernels.triton.decode_plan import MOST_QUERIES
from attnscope.kernels.triton.device import missing

CAUSAL = Causal()


def paged_decode(
    q_BHQD: Tensor,
    k_PSGD: Tensor,
    v_PSGD: Tensor,
    *,
    table_BN: Tensor,
    lengths_B: Tensor,
    pattern: Pattern = CAUSAL,
    scale: float | None = None,
    softcap: float | None = None,
    sinks_H: Tensor | None = None,
    distance_bias_HR: Tensor | None = None,
    parts: int | None = None,
) -> AttentionOutput:
    """Attention of the last few queries of each sequence over its pages.

    The last query of a sequence stands at its last key. Exact; sums in float32. Slots past a
    sequence's length, or hidden by the pattern from all its queries, are never read.

    Args:
        q_BHQD: `[B, H, Q, D]`, Q at most `MOST_QUERIES`; float32, float16 or bfloat16, any strides.
        k_PSGD: The pool of keys, `[pages, page_size, G, D]`, any page size, any strides.
        v_PSGD: The pool of values, `[pages, page_size, G, value_dim]`.
        table_BN: int32 or int64 `[B, N]`, the pages of each sequence in order; what lies past the
            page that holds the last key is not read.
        lengths_B: int32 or int64 `[B]`, keys of each sequence, the queries' own included; at most
            N · page_size, which is not checked, for it would wait for the device.
        pattern: Full, causal or a window.
        scale: Multiplies q·k; `D ** -0.5` when None.
        softcap: Bound of the scores, or None.
        sinks_H: One logit a head that joins the denominator, or None.
        distance_bias_HR: float32 `[H, Q + N · page_size − 1]`, see `kernels/distance_bias.py`: of the longest
            sequence that the table can list; of its distances a shorter one has the last. Or None.
        parts: Into how many the keys are split; by `splits` when None.

    Returns:
        `[B, H, Q, value_dim]` and `[B, H, Q]`; 0 and −inf in a row that sees nothing.

    Raises:
        InvalidCall: Shapes or dtypes contradict each other.
        UnsupportedCall: No Triton kernel of ours runs this, here; the message says why.
    """
    _check_table(q_BHQD, k_PSGD, v_PSGD, table_BN, lengths_B)
    batch, query_heads, query_length, head_dim = q_BHQD.shape
    capacity = table_BN.shape[1] * k_PSGD.shape[1]
    call = AttentionCall(
        batch=batch,
        query_heads=query_heads,
        kv_heads=k_PSGD.shape[2],
        query_length=query_length,
        key_length=capacity,
        head_dim=head_dim,
        value_dim=v_PSGD.shape[3],
        dtype=str(q_BHQD.dtype).removeprefix("torch."),  # pyright: ignore[reportArgumentType]
        scale=head_dim**-0.5 if scale is None else scale,
        pattern=pattern,
        # Of the longest sequence there may be: the splits are chosen for it.
        query_offset=max(capacity - query_length, 0),
        softcap=softcap,
        has_sinks=sinks_H is not None,
        has_distance_bias=distance_bias_HR is not None,
    )
    _check_kernel(call, q_BHQD.device)
    _check_extras(call, sinks_H, distance_bias_HR)
    store = KeyStore(
        k_PGSD=k_PSGD.transpose(1, 2),
        v_PGSD=v_PSGD.transpose(1, 2),
        table_BN=table_BN.contiguous(),
        lengths_B=lengths_B.contiguous(),
    )
    return decode_over(
        q_BHQD,
        store,
        call,
        sinks_H=sinks_H,
        visible_keys_BK=None,
        distance_bias_HR=distance_bias_HR,
        parts=parts,
    )


def _check_table(
    q_BHQD: Tensor, k_PSGD: Tensor, v_PSGD: Tensor, table_BN: Tensor, lengths_B: Tensor
) -> None:
    dimensions = [tensor.ndim for tensor in (q_BHQD, k_PSGD, v_PSGD, table_BN, lengths_B)]
    if dimensions != [4, 4, 4, 2, 1]:
        raise InvalidCall(
            "q, k, v, table and lengths must have 4, 4, 4, 2 and 1 dimensions, "
            f"got {', '.join(map(str, dimensions))}."
        )
    keys, values = tuple(k_PSGD.shape), tuple(v_PSGD.shape)
    if keys[:3] != values[:3]:
        raise InvalidCall(
            f"the pools must agree in pages, slots and heads, got {keys} and {values}."
        )
    if q_BHQD.shape[3] != keys[3]:
        raise InvalidCall(f"q is {q_BHQD.shape[3]} wide, the pool of keys {keys[3]}.")
    batches = q_BHQD.shape[0], table_BN.shape[0], lengths_B.shape[0]
    if len(set(batches)) > 1:
        raise InvalidCall(f"q, table and lengths must be of one batch, got {batches}.")
    dtypes = {tensor.dtype for tensor in (q_BHQD, k_PSGD, v_PSGD)}
    if len(dtypes) > 1:
        raise InvalidCall(f"q and the pools must share a dtype, got {sorted(map(str, dtypes))}.")
    integers = {table_BN.dtype, lengths_B.dtype}
    if not integers <= {torch.int32, torch.int64}:
        raise InvalidCall(
            f"table and lengths must be int32 or int64, got {sorted(map(str, integers))}."
        )


def _check_extras(
    call: AttentionCall, sinks_H: Tensor | None, distance_bias_HR: Tensor | None
) -> None:
    heads = call.query_heads
    if sinks_H is not None and tuple(sinks_H.shape) != (heads,):
        raise InvalidCall(f"sinks must have shape ({heads},), got {tuple(sinks_H.shape)}.")
    if distance_bias_HR is None:
        return
    expected = (heads, distance_bias.columns(call.query_length, call.key_length))
    shape, dtype = tuple(distance_bias_HR.shape), distance_bias_HR.dtype
    if shape != expected or dtype != torch.float32:
        raise InvalidCall(
            f"distance_bias must be float32 of shape {expected}, got {dtype} of {shape}."
        )


def _check_kernel(call: AttentionCall, device: torch.device) -> None:
    lacking = missing(device)
    if lacking is not None:
        raise UnsupportedCall(f"Paged decode: {lacking}.")
    if call.dtype == "float64":
        raise UnsupportedCall("Paged decode: its kernel computes in float32, float16, bfloat16.")
    if call.query_length > MOST_QUERIES:
        raise UnsupportedCall(
            f"Paged decode: it takes up to {MOST_QUERIES} queries, got {call.query_length}."
        )
    if band(call.pattern) is None:
        raise UnsupportedCall(
            "Paged decode: it takes full, causal and window patterns, "
            f"and this is {call.pattern.title!r}."
        )
