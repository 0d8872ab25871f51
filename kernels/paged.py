"""Attention over a paged key/value cache on any device: pages are read tile by tile, never put in a row.

The same answer as `triton.paged.paged_decode`, by the algorithm of `tiled` (arXiv 2309.06180 §4.1).

B batch, H query heads, G kv heads, Q queries, D head dim, R distances; P pages of the pool, S slots of a page,
N pages that a sequence's row of the table can list, C keys of one tile.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from attnscope.kernels import distance_bias
from attnscope.kernels.call import AttentionCall, AttentionOutput
from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.patterns.causal import Causal
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.scores import accumulation_dtype
from attnscope.kernels.tiled import attend

CAUSAL = Causal()
KEYS_AT_A_TIME = 1024


@dataclass(frozen=True, slots=True)
class Pages:
    """The keys or values of one sequence where they lie: some pages of a pool, in order.

    Attributes:
        pool_PSGD: The pool, `[pages, slots, G, D]`.
        pages_N: int64, the sequence's pages.
    """

    pool_PSGD: Tensor
    pages_N: Tensor

    def narrow(self, dim: int, start: int, length: int, /) -> Tensor:
        """The keys from `start` on, `[1, G, length, D]`: a copy of their pages alone."""
        assert dim == 2
        slots = self.pool_PSGD.shape[1]
        first, last = start // slots, -(-(start + length) // slots)
        tile_CGD = self.pool_PSGD.index_select(0, self.pages_N[first:last]).flatten(0, 1)
        at = start - first * slots
        return tile_CGD[at : at + length].transpose(0, 1)[None]


def paged(  # noqa: PLR0913 -- what a call has, and where its keys lie
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
    keys_at_a_time: int = KEYS_AT_A_TIME,
) -> AttentionOutput:
    """Attention of the last queries of each sequence over its pages.

    The last query of a sequence stands at its last key. Exact; sums in float32 (float64 for float64
    inputs). Slots past a sequence's length, or hidden by the pattern from all queries, count nothing.

    Args:
        q_BHQD: `[B, H, Q, D]`, any number of queries up to the shortest sequence.
        k_PSGD: The pool of keys, `[pages, page_size, G, D]`.
        v_PSGD: The pool of values, `[pages, page_size, G, value_dim]`.
        table_BN: int32 or int64 `[B, N]`, the pages of each sequence in order; what lies past the
            page that holds the last key is not read.
        lengths_B: int32 or int64 `[B]`, keys of each sequence, the queries' own included.
        pattern: Which pairs are visible, in positions of each sequence.
        scale: Multiplies q·k; `D ** -0.5` when None.
        softcap: Bound of the scores, or None.
        sinks_H: One logit a head that joins the denominator, or None.
        distance_bias_HR: float32 `[H, Q + N · page_size − 1]`, see `kernels/distance_bias.py`: of the longest
            sequence that the table can list; of its distances a shorter one has the last. Or None.
        keys_at_a_time: Keys of a tile, at most.

    Returns:
        `[B, H, Q, value_dim]` and `[B, H, Q]`; 0 and −inf in a row that sees nothing.

    Raises:
        InvalidCall: Shapes or dtypes contradict each other, a length does not fit its row of the
            table, or the table names a page that the pool does not have.
    """
    _check_shapes(q_BHQD, k_PSGD, v_PSGD, table_BN, lengths_B)
    capacity = table_BN.shape[1] * k_PSGD.shape[1]
    _check_bias(distance_bias_HR, (q_BHQD.shape[1], q_BHQD.shape[2] + capacity - 1))
    lengths = lengths_B.tolist()
    _check_lengths(lengths, q_BHQD.shape[2], table_BN, k_PSGD)
    out_BHQD = q_BHQD.new_empty(*q_BHQD.shape[:3], v_PSGD.shape[3])
    lse_BHQ = q_BHQD.new_empty(q_BHQD.shape[:3], dtype=accumulation_dtype(q_BHQD.dtype))
    for row, length in enumerate(lengths):
        pages_N = table_BN[row, : -(-length // k_PSGD.shape[1])].to(k_PSGD.device, torch.int64)
        call = AttentionCall(
            batch=1,
            query_heads=q_BHQD.shape[1],
            kv_heads=k_PSGD.shape[2],
            query_length=q_BHQD.shape[2],
            key_length=length,
            head_dim=q_BHQD.shape[3],
            value_dim=v_PSGD.shape[3],
            dtype=str(q_BHQD.dtype).removeprefix("torch."),  # pyright: ignore[reportArgumentType]
            scale=q_BHQD.shape[3] ** -0.5 if scale is None else scale,
            pattern=pattern,
            query_offset=length - q_BHQD.shape[2],
            softcap=softcap,
            has_sinks=sinks_H is not None,
            has_distance_bias=distance_bias_HR is not None,
        )
        out_1HQD, lse_1HQ = attend(
            q_BHQD[row : row + 1],
            Pages(k_PSGD, pages_N),
            Pages(v_PSGD, pages_N),
            call,
            first_query=call.query_offset,
            sinks_h=sinks_H,
            distance_bias_hR=_bias_of(distance_bias_HR, call, capacity),
            keys_at_a_time=keys_at_a_time,
        )
        out_BHQD[row], lse_BHQ[row] = out_1HQD[0], lse_1HQ[0]
    return AttentionOutput(out_BHQD=out_BHQD, lse_BHQ=lse_BHQ)


def write_pages(keys_KGD: Tensor, pool_PSGD: Tensor, pages_N: Tensor) -> None:
    """Writes a sequence's keys or values into its pages of a pool, in place.

    Args:
        keys_KGD: `[K, G, D]`, K at most what the pages hold.
        pool_PSGD: `[pages, slots, G, D]`.
        pages_N: int64, the sequence's pages in order.

    Raises:
        InvalidCall: More keys than the pages hold.
    """
    slots = pool_PSGD.shape[1]
    if len(keys_KGD) > len(pages_N) * slots:
        raise InvalidCall(f"{len(pages_N)} pages of {slots} do not hold {len(keys_KGD)} keys.")
    position_K = torch.arange(len(keys_KGD), device=pool_PSGD.device)
    pool_PSGD[pages_N[position_K // slots], position_K % slots] = keys_KGD


def _bias_of(bias_HR: Tensor | None, call: AttentionCall, capacity: int) -> Tensor | None:
    """The bias of a sequence, of that of the longest that there may be: their last keys align."""
    if bias_HR is None:
        return None
    keys = range(capacity - call.key_length, capacity)
    return distance_bias.of_part(
        bias_HR, range(call.query_length), keys, query_length=call.query_length
    )


def _check_shapes(
    q_BHQD: Tensor, k_PSGD: Tensor, v_PSGD: Tensor, table_BN: Tensor, lengths_B: Tensor
) -> None:
    dimensions = [tensor.ndim for tensor in (q_BHQD, k_PSGD, v_PSGD, table_BN, lengths_B)]
    if dimensions != [4, 4, 4, 2, 1]:
        raise InvalidCall(
            "q, k, v, table and lengths must have 4, 4, 4, 2 and 1 dimensions, "
            f"got {', '.join(map(str, dimensions))}."
        )
    pools = tuple(k_PSGD.shape), tuple(v_PSGD.shape)
    if pools[0][:3] != pools[1][:3] or q_BHQD.shape[3] != pools[0][3]:
        raise InvalidCall(
            "the pools must agree in pages, slots and heads, and q with the keys in width, got "
            f"q {tuple(q_BHQD.shape)}, k {pools[0]} and v {pools[1]}."
        )
    if not q_BHQD.shape[0] == table_BN.shape[0] == lengths_B.shape[0]:
        batches = q_BHQD.shape[0], table_BN.shape[0], lengths_B.shape[0]
        raise InvalidCall(f"q, table and lengths must be of one batch, got {batches}.")
    dtypes = {tensor.dtype for tensor in (q_BHQD, k_PSGD, v_PSGD)}
    if len(dtypes) > 1:
        raise InvalidCall(f"q and the pools must share a dtype, got {sorted(map(str, dtypes))}.")
    if not {table_BN.dtype, lengths_B.dtype} <= {torch.int32, torch.int64}:
        raise InvalidCall(
            f"table and lengths must be int32 or int64, got {table_BN.dtype}, {lengths_B.dtype}."
        )


def _check_bias(bias_HR: Tensor | None, expected: tuple[int, int]) -> None:
    if bias_HR is None or (tuple(bias_HR.shape) == expected and bias_HR.dtype == torch.float32):
        return
    raise InvalidCall(
        f"distance_bias must be float32 of shape {expected}, got {bias_HR.dtype} of "
        f"{tuple(bias_HR.shape)}."
    )


def _check_lengths(lengths: list[int], queries: int, table_BN: Tensor, pool_PSGD: Tensor) -> None:
    pages, slots = pool_PSGD.shape[:2]
    for row, length in enumerate(lengths):
        if not max(queries, 1) <= length <= table_BN.shape[1] * slots:
            raise InvalidCall(
                f"sequence {row} has {length} keys: it needs at least its {queries} queries, and "
                f"its row of the table holds {table_BN.shape[1]} pages of {slots}."
            )
        named = table_BN[row, : -(-length // slots)]
        wrong = named[(named < 0) | (named >= pages)]
        if len(wrong):
            raise InvalidCall(
                f"sequence {row} names page {int(wrong[0])}; the pool has 0 to {pages - 1}."
            )
