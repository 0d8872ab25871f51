"""What patterns do to the heads of a layer: the mass they keep, and the error they make in the output.

A pattern is composed with the layer's own, and attention is renormalised over the pairs that both show:
what the model would really compute. Weights relative to the dense softmax serve every pattern, since
numerator and denominator of each shrink alike: so scores and exponentials are computed once for all of
them, a tile at a time, and nothing of Q × K elements is held.

H query heads, G kv heads, Q, K positions, D head dim, V value dim; R queries and C keys of a tile.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attnscope.kernels import distance_bias
from attnscope.kernels.call import AttentionCall
from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.patterns.composed import compose
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.scores import accumulation_dtype, visible
from attnscope.kernels.streaming import BLOCK_KEYS, Layer, Segment, exponentials, segments
from attnscope.kernels.tiled import tiled

TILE_ROWS = 256
"""Queries of a tile at most: of 32 to 256 the fastest for 12 heads on a CPU."""
TILE_PAIRS = 1 << 22
"""Pairs of a tile over all heads, where that leaves 16 queries: 16 MiB of float32."""
LEAST_GAP = 256
"""Keys between two runs that a pattern shows, at least, for them to be read apart."""
LEAST_MASS = 1e-20
"""Kept mass below which a row is taken anew: weights as small lie too near the least that is told apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PatternEffect:
    """What one pattern does to every head of a layer.

    A query counts when it sees a key in the layer itself and its own position is not padding.

    Attributes:
        pattern: As it was asked; the layer's own is composed with it.
        mass_H: float32, 0 to 1: of the weight that a query gives to keys, the share on those kept;
            the mean over the queries that count. A sink logit's weight is on no key.
        error_H: float32, ‖o − o_dense‖ / ‖o_dense‖ over the outputs of the queries that count.
        kept_share: Pairs kept over those that the layer shows, padding aside.
        empty_queries: How many of the queries that count see no key any more; their output is 0.
    """

    pattern: Pattern
    mass_H: Tensor
    error_H: Tensor
    kept_share: float
    empty_queries: int


def effects(
    layer: Layer,
    lse_HQ: Tensor,
    v_GKV: Tensor,
    patterns: Sequence[Pattern],
    *,
    sinks_H: Tensor | None = None,
    progress: Callable[[float], None] | None = None,
) -> tuple[PatternEffect, ...]:
    """The effect of each pattern on all heads of a layer, for one sequence.

    Args:
        layer: Its heads.
        lse_HQ: Natural log-sum-exp, sink included; −inf where nothing is seen.
        v_GKV: Values, not repeated.
        patterns: Any of the catalogue, or fitted.
        sinks_H: The sink logits that `lse_HQ` holds, or None.
        progress: Called with the share done; it may raise to stop.

    Returns:
        One a pattern, in their order. Sums are float32, and float64 for float64 layers.

    Raises:
        InvalidCall: Values of another shape, or a pattern that `within` refuses; nothing has run.
    """
    if v_GKV.shape[:2] != layer.k_GKD.shape[:2]:
        raise InvalidCall(
            f"values must be [kv heads, keys, dim] of {tuple(layer.k_GKD.shape[:2])}, got "
            f"{tuple(v_GKV.shape)}."
        )
    shown = [within(layer, pattern) for pattern in patterns]
    sums = _Sums(layer, len(patterns))
    reader = _Reader(layer.key_major(), lse_HQ, v_GKV, sinks_H, patterns, shown)
    step = min(TILE_ROWS, max(16, TILE_PAIRS // (layer.heads * BLOCK_KEYS)))
    for start in range(0, layer.query_length, step):
        rows = slice(start, min(start + step, layer.query_length))
        sums.add(*reader.read(rows))
        if progress is not None:
            progress(rows.stop / layer.query_length)
    own_pairs = _pairs(layer, layer.pattern)
    return tuple(
        PatternEffect(
            pattern=pattern,
            mass_H=(sums.mass_PH[at] / sums.queries).float(),
            error_H=(sums.error_PH[at] / sums.norm_H).sqrt().float(),
            kept_share=_pairs(layer, both) / own_pairs,
            empty_queries=int(sums.empty_P[at]),
        )
        for at, (pattern, both) in enumerate(zip(patterns, shown, strict=True))
    )


def within(layer: Layer, pattern: Pattern) -> Pattern:
    """The pattern and the layer's own rule at once.

    Raises:
        InvalidCall: As `restricted`.
    """
    queries = range(layer.query_offset, layer.query_offset + layer.query_length)
    return restricted(pattern, layer.pattern, queries=queries, key_length=layer.key_length)


def restricted(pattern: Pattern, own: Pattern, *, queries: range, key_length: int) -> Pattern:
    """A pattern and a layer's own rule at once.

    Args:
        pattern: What is tried.
        own: What the layer shows.
        queries: Absolute positions.
        key_length: Keys.

    Raises:
        InvalidCall: The pattern is made for other lengths, its window is longer than the sequence, or
            it leaves no pair.
    """
    pattern.check_lengths(queries, key_length)
    window = pattern.parameters.get("window")
    if isinstance(window, int) and window > key_length:
        raise InvalidCall(
            f"a window of {window} is longer than the {key_length} tokens.",
            f"Use a window of 1 to {key_length}.",
        )
    both = own if pattern == own else compose(pattern, own)
    if not both.kept_pairs(len(queries), key_length, query_offset=queries.start):
        raise InvalidCall(
            f"the pattern {pattern.title!r} leaves no query anything to see beside the rule "
            f"{own.title!r}.",
            "Choose one that keeps some pairs.",
        )
    return both


class _Sums:
    """Over the queries read so far."""

    def __init__(self, layer: Layer, patterns: int) -> None:
        # In float64: a long sequence adds millions of small numbers to a large one.
        new = layer.q_HQD.new_zeros
        self.mass_PH = new(patterns, layer.heads, dtype=torch.float64)
        self.error_PH = torch.zeros_like(self.mass_PH)
        self.norm_H = new(layer.heads, dtype=torch.float64)
        self.empty_P = new(patterns, dtype=torch.int64)
        self.queries = 0
        self._own_Q = layer.unpadded()
        self._read = 0

    def add(self, out_PHRV: Tensor, mass_PHR: Tensor) -> None:
        """Adds a block of queries, the next in order; the first of the patterns is the layer's own."""
        rows = mass_PHR.shape[2]
        counts_R = (mass_PHR[0, 0] > 0) & self._own_Q[self._read : self._read + rows]
        self._read += rows
        if not bool(counts_R.all()):
            out_PHRV, mass_PHR = out_PHRV[:, :, counts_R], mass_PHR[..., counts_R]
        wide = torch.float64
        self.queries += mass_PHR.shape[2]
        self.mass_PH += (mass_PHR[1:] / mass_PHR[0]).sum(-1, dtype=wide)
        self.error_PH += (out_PHRV[1:] - out_PHRV[0]).square_().sum((2, 3), dtype=wide)
        self.norm_H += out_PHRV[0].square().sum((1, 2), dtype=wide)
        self.empty_P += (mass_PHR[1:, 0] == 0).sum(-1)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads a block of queries once, for the layer's own rule and for every pattern."""

    layer: Layer
    lse_HQ: Tensor
    v_GKV: Tensor
    sinks_H: Tensor | None
    patterns: Sequence[Pattern]
    shown: Sequence[Pattern]

    def read(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Outputs `[1 + patterns, H, R, V]`, and the weight on keys, `[1 + patterns, H, R]`.

        The weight is relative to the dense softmax, and 0 exactly where no key is seen.
        """
        layer, first, last = self.layer, rows.start, rows.stop - 1
        dtype = accumulation_dtype(layer.q_HQD.dtype)
        lse_HR = self.lse_HQ[:, rows].to(dtype)
        lse_HR = lse_HR.masked_fill(lse_HR == -torch.inf, torch.inf)
        shape = (1 + len(self.patterns), layer.heads, last + 1 - first, self.v_GKV.shape[2] + 1)
        # The last column sums the weights: its values are all 1.
        total_PHRV = layer.q_HQD.new_zeros(shape, dtype=dtype)
        every = range(layer.key_length)
        for segment in segments(layer, first, last, every, limit=BLOCK_KEYS):
            weights_HRC = self._weights(rows, segment, lse_HR)
            total_PHRV[0] += self._product(weights_HRC, segment.start)
            for at, pattern in enumerate(self.patterns, start=1):
                for keys in self._runs(pattern, rows, segment):
                    part = slice(keys.start - segment.start, keys.stop - segment.start)
                    seen_RC = self._seen(pattern, rows, keys).to(dtype)
                    total_PHRV[at] += self._product(weights_HRC[..., part] * seen_RC, keys.start)
        mass_PHR = total_PHRV[..., -1]
        out_PHRV = total_PHRV[..., :-1] / self._denominator(mass_PHR, lse_HR)
        faint_P = ((mass_PHR > 0) & (mass_PHR < LEAST_MASS * mass_PHR[0])).flatten(1).any(1)
        for at in faint_P.nonzero()[:, 0].tolist():
            out_PHRV[at] = self._anew(rows, self.shown[at - 1])
        return out_PHRV, mass_PHR

    def _weights(self, rows: slice, segment: Segment, lse_HR: Tensor) -> Tensor:
        layer, keys = self.layer, slice(segment.start, segment.end)
        weights_HRC = exponentials(layer.scores(rows, keys).sub_(lse_HR[..., None]))
        if segment.masked or layer.visible_keys_K is not None:
            index_R = torch.arange(rows.start, rows.stop, device=weights_HRC.device)
            weights_HRC *= layer.seen(index_R, range(segment.start, segment.end)).to(weights_HRC)
        return weights_HRC

    def _product(self, weights_HRC: Tensor, start: int) -> Tensor:
        """Σ w·[v, 1], `[H, R, V + 1]`: the heads that share a kv head stand below each other."""
        groups = self.v_GKV.shape[0]
        v_GCV = self.v_GKV[:, start : start + weights_HRC.shape[2]].to(weights_HRC)
        v_GCV = torch.nn.functional.pad(v_GCV, (0, 1), value=1.0)
        product_GrV = weights_HRC.reshape(groups, -1, weights_HRC.shape[2]) @ v_GCV
        return product_GrV.view(*weights_HRC.shape[:2], -1)

    def _runs(self, pattern: Pattern, rows: slice, segment: Segment) -> Iterator[range]:
        """The keys of a segment that the pattern shows some of these queries."""
        offset, keys = self.layer.query_offset, self.layer.key_length
        at: range | None = None
        for first, last in pattern.key_spans(rows.start + offset, rows.stop + offset, keys):
            start, end = max(first, segment.start), min(last, segment.end)
            if start >= end:
                continue
            if at is not None and start - at.stop >= LEAST_GAP:
                yield at
                at = None
            at = range(start if at is None else at.start, end)
        if at is not None:
            yield at

    def _seen(self, pattern: Pattern, rows: slice, keys: range) -> Tensor:
        offset = self.layer.query_offset
        queries = range(rows.start + offset, rows.stop + offset)
        return visible(pattern, queries, keys, device=self.layer.q_HQD.device)

    def _denominator(self, mass_PHR: Tensor, lse_HR: Tensor) -> Tensor:
        if self.sinks_H is not None:
            mass_PHR = mass_PHR + (self.sinks_H.to(lse_HR)[:, None] - lse_HR).exp()
        return mass_PHR.masked_fill(mass_PHR == 0, 1)[..., None]

    def _anew(self, rows: slice, both: Pattern) -> Tensor:
        """The outputs of a pattern alone, `[H, R, V]`: relative to its own largest weight."""
        layer, hidden_K = self.layer, self.layer.visible_keys_K
        dtype = accumulation_dtype(layer.q_HQD.dtype)
        q, k, v = (x.to(dtype)[None] for x in (layer.q_HQD[:, rows], layer.k_GKD, self.v_GKV))
        call = AttentionCall.of(
            q,
            k,
            v,
            pattern=both,
            scale=layer.scale,
            query_offset=layer.query_offset + rows.start,
            softcap=layer.softcap,
            has_sinks=self.sinks_H is not None,
            has_padding=hidden_K is not None,
            has_distance_bias=layer.distance_bias_HR is not None,
        )
        bias_HR = layer.distance_bias_HR
        if bias_HR is not None:
            every, length = range(layer.key_length), layer.query_length
            part = range(rows.start, rows.stop)
            bias_HR = distance_bias.of_part(bias_HR, part, every, query_length=length)
        return tiled(
            q,
            k,
            v,
            call,
            sinks_H=self.sinks_H,
            visible_keys_BK=None if hidden_K is None else hidden_K[None],
            distance_bias_HR=bias_HR,
        ).out_BHQD[0]


def _pairs(layer: Layer, pattern: Pattern) -> int:
    lengths = layer.query_length, layer.key_length
    return pattern.kept_pairs(*lengths, query_offset=layer.query_offset)
