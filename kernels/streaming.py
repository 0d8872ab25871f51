"""Reading a layer's scores block by block, so that no array of Q × K elements ever exists.

H query heads, G kv heads, Q, K positions, D head dim; R queries and C keys of one block.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attnscope.kernels import distance_bias
from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.patterns.pattern import Pattern, Spans
from attnscope.kernels.scores import accumulation_dtype, scores, visible

BLOCK_PAIRS = 1 << 18
"""Pairs of one block over all its heads: 1 MiB of float32, which the second-level cache holds."""
LEAST_ROWS = 128
"""Queries of one block, at least: with fewer, the calls cost more than the arithmetic."""
BLOCK_KEYS = 1024
"""Keys of one block, where there are as many."""
LOWEST_LOG, HIGHEST_LOG = -80.0, 88.0
"""The logs whose exponentials are normal float32 numbers, and so are these times 1/1000."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What the heads of one layer attended with, for one sequence.

    Attributes:
        q_HQD: Queries as the kernel saw them (after rotary position), any floating dtype.
        k_GKD: Keys, not repeated; G divides H.
        pattern: Which pairs are visible, in absolute positions.
        query_offset: Absolute position of the first query.
        scale: Multiplies q·k.
        softcap: Bound of the scores, or None.
        visible_keys_K: bool, False where a key is padding; None when nothing is padded.
        distance_bias_HR: float32 `[H, Q + K − 1]`, added to the scores after softcap, see
            `kernels/distance_bias.py`; None where nothing is.
    """

    q_HQD: Tensor
    k_GKD: Tensor
    pattern: Pattern
    query_offset: int
    scale: float
    softcap: float | None = None
    visible_keys_K: Tensor | None = None
    distance_bias_HR: Tensor | None = None

    def __post_init__(self) -> None:
        q, k = tuple(self.q_HQD.shape), tuple(self.k_GKD.shape)
        if len(q) != 3 or len(k) != 3 or q[2] != k[2] or q[0] % k[0]:
            raise InvalidCall(
                "q must be [heads, queries, dim] and k [kv heads, keys, dim], kv heads dividing "
                f"heads, got q {q} and k {k}."
            )
        hidden = self.visible_keys_K
        if hidden is not None and (tuple(hidden.shape) != k[1:2] or hidden.dtype != torch.bool):
            raise InvalidCall(
                f"visible_keys_K must be bool [{k[1]}], got {hidden.dtype} {tuple(hidden.shape)}."
            )
        bias = self.distance_bias_HR
        distances = (q[0], distance_bias.columns(q[1], k[1]))
        if bias is not None and tuple(bias.shape) != distances:
            raise InvalidCall(f"distance_bias_HR must be {distances}, got {tuple(bias.shape)}.")

    @property
    def heads(self) -> int:
        """H."""
        return self.q_HQD.shape[0]

    @property
    def query_length(self) -> int:
        """Q."""
        return self.q_HQD.shape[1]

    @property
    def key_length(self) -> int:
        """K."""
        return self.k_GKD.shape[1]

    def unpadded(self) -> Tensor:
        """Which queries are tokens: the key at their own position is not padding; bool `[Q]`."""
        device, hidden_K = self.q_HQD.device, self.visible_keys_K
        position_Q = torch.arange(self.query_length, device=device) + self.query_offset
        if hidden_K is None:
            return torch.ones_like(position_Q, dtype=torch.bool)
        last = self.key_length - 1
        return (position_Q > last) | hidden_K[position_Q.clamp(max=last)]

    def of_heads(self, heads: slice | list[int], groups: slice | list[int]) -> "Layer":
        """Some query heads, and the kv heads that they read; of lists, a kv head for each query head."""
        bias_HR = self.distance_bias_HR
        return replace(
            self,
            q_HQD=self.q_HQD[heads],
            k_GKD=self.k_GKD[groups],
            distance_bias_HR=None if bias_HR is None else bias_HR[heads],
        )

    def key_major(self) -> "Layer":
        """The same layer with one copy of the keys, laid out for products with few queries each.

        With several heads of 64 dimensions the products take half the time.
        """
        dtype = accumulation_dtype(self.k_GKD.dtype)
        return replace(self, k_GKD=self.k_GKD.to(dtype).mT.contiguous().mT)

    def scores(self, queries: slice | Tensor, keys: slice) -> Tensor:
        """Scores of a block of pairs, before any mask: float32 (float64 for float64) `[H, R, C]`.

        Args:
            queries: Indices into Q (not absolute positions).
            keys: Slice of K.
        """
        q_HRD, k_GCD = rows_of(self.q_HQD, queries), self.k_GKD[:, keys]
        heads, rows, width = q_HRD.shape
        groups = k_GCD.shape[0]
        # The query heads of one kv head stand below each other: k is read once, never repeated.
        q_GRD = q_HRD.reshape(groups, heads // groups * rows, width)
        block = scores(q_GRD, k_GCD, scale=self.scale, softcap=self.softcap)
        block_HRC = block.view(heads, rows, -1)
        if self.distance_bias_HR is not None:
            block_HRC += self._bias(queries, keys)
        return block_HRC

    def _bias(self, queries: slice | Tensor, keys: slice) -> Tensor:
        assert self.distance_bias_HR is not None
        device = self.q_HQD.device
        key_C = torch.arange(self.key_length, device=device)[keys]
        index_R = (
            torch.arange(self.query_length, device=device)[queries]
            if isinstance(queries, slice)
            else queries
        )
        return distance_bias.of_pairs(
            self.distance_bias_HR, index_R, key_C, query_length=self.query_length
        )

    def seen(self, queries: Tensor, keys: range, *, padding: bool = True) -> Tensor:
        """Which pairs of a block may attend: bool `[R, C]`, the same for every head.

        Args:
            queries: Indices into Q.
            keys: Positions in K.
            padding: Whether hidden keys count as unseen; the pattern alone is asked otherwise.
        """
        return visible(
            self.pattern,
            queries + self.query_offset,
            keys,
            self.visible_keys_K if padding else None,
            device=self.q_HQD.device,
        )


def exponentials(logs: Tensor) -> Tensor:
    """`exp` in place, from 1.8e-35 upwards: what lies below is given as that.

    A processor takes some hundred times longer for a result that underflows, and a peaky head has
    many; as a weight, 1.8e-35 is nothing.
    """
    return logs.clamp_(LOWEST_LOG, HIGHEST_LOG).exp_()


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A run of keys that a block of queries visits.

    Attributes:
        start: First key.
        end: One past the last key.
        masked: Whether the pattern hides some pairs, so that its rule must be applied.
    """

    start: int
    end: int
    masked: bool

    def pieces(self, limit: int) -> Iterator["Segment"]:
        """The segment in parts of at most `limit` keys."""
        for at in range(self.start, self.end, limit):
            yield Segment(start=at, end=min(at + limit, self.end), masked=self.masked)


def segments(
    layer: Layer,
    first_query: int,
    last_query: int,
    keys: range,
    *,
    limit: int,
    apart: bool = True,
) -> list[Segment]:
    """The runs of keys that the queries from first to last (inclusive) visit within `keys`.

    Args:
        layer: Its pattern and offset rule.
        first_query: Smallest index into Q of the block.
        last_query: Largest.
        keys: Positions in K to stay within.
        limit: No segment is longer.
        apart: Keep keys that need no mask in segments of their own; all are masked otherwise.

    Returns:
        Sorted, disjoint; pairs outside all of them are invisible.
    """
    start, end = first_query + layer.query_offset, last_query + 1 + layer.query_offset
    spans = _clip(layer.pattern.key_spans(start, end, layer.key_length), keys)
    full = _clip(layer.pattern.full_key_spans(start, end, layer.key_length), keys) if apart else []
    return [piece for span in spans for part in _cut(span, full) for piece in part.pieces(limit)]


def _clip(spans: Spans, keys: range) -> list[tuple[int, int]]:
    inside = ((max(start, keys.start), min(end, keys.stop)) for start, end in spans)
    return [(start, end) for start, end in inside if start < end]


def _cut(span: tuple[int, int], full: list[tuple[int, int]]) -> Iterator[Segment]:
    at, end = span
    for full_start, full_end in full:
        inner_start, inner_end = max(full_start, at), min(full_end, end)
        if inner_start >= inner_end:
            continue
        if at < inner_start:
            yield Segment(start=at, end=inner_start, masked=True)
        yield Segment(start=inner_start, end=inner_end, masked=False)
        at = inner_end
    if at < end:
        yield Segment(start=at, end=end, masked=True)


def rows_of(values_HQ: Tensor, queries: slice | Tensor) -> Tensor:
    """Some queries of the second dimension; `index_select` is five times faster than an index."""
    if isinstance(queries, slice):
        return values_HQ[:, queries]
    return values_HQ.index_select(1, queries)
