"""Why a head's output is wrong, where recomputing it proves it: in float64, with one rule changed.

A cause is named only if the output with that one rule changed is the output found, in every wrong query that is
tried, within what a right cell may err. Of several the closest is named; what no change explains gets no name.

G kv heads, K keys, D head dim; one query of one head at a time.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attnscope.kernels.scores import scores, visible
from attnscope.models.swapping import LayerCall
from attnscope.profiling.exact_rows import rows_of
from attnscope.profiling.head_errors import LayerErrors, Span

_TRIED = 12
"""Wrong queries of a head that a cause must explain, evenly drawn from all of them."""
_OCTAVES, _PARTS = 10, 16
"""A wrong scale is looked for from 2^-10 to 2^10 times the right one, in sixteenths of an octave first."""
_LEAST_KEYS = 3
"""With two keys every output lies on one line, on which some scale explains any point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """What is wrong, as proven.

    Attributes:
        layer: From 0.
        head: From 0.
        query: The first wrong query, as in `Cell`.
        key: The key that it wrongly sees or does not see, padding left out; None where the cause is no single key.
        words: One sentence.
    """

    layer: int
    head: int
    query: int
    key: int | None
    words: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Row:
    """One query of one head: all that its output is made of, in float64, and the output found.

    `at` is the position of its own key, `start` that of its sequence's first token.
    """

    at: int
    start: int
    q_D: Tensor
    k_GKD: Tensor
    v_GKD: Tensor
    unpadded_K: Tensor
    unmasked_K: Tensor
    seen_K: Tensor
    group: int
    scale: float
    softcap: float | None
    sink: float | None
    bias_K: Tensor
    found_D: Tensor
    allowed: float

    def terms(self) -> tuple[Tensor, float]:
        """Exp of every key's score, hidden ones too, `[K]`, and of the sink: all over the largest of them."""
        keys_KD = self.k_GKD[self.group]
        scores_K = scores(self.q_D[None], keys_KD, scale=self.scale, softcap=self.softcap)[0]
        scores_K = scores_K + self.bias_K
        sink = -math.inf if self.sink is None else self.sink
        largest = max(scores_K.max().item(), sink)
        return (scores_K - largest).exp(), math.exp(sink - largest)

    def miss(self, v_KD: Tensor | None = None) -> float:
        """How far the row, as it is now, is from the output found; up to 1 it explains it."""
        v_KD = self.v_GKD[self.group] if v_KD is None else v_KD
        terms_K, sink = self.terms()
        terms_K = terms_K * self.seen_K
        weights_K = terms_K / (terms_K.sum() + sink).clamp_min(torch.finfo(torch.float64).tiny)
        return self.distance(weights_K @ v_KD, weights_K @ v_KD.abs())

    def distance(self, out_D: Tensor, size_D: Tensor) -> float:
        """How far the output found is from another, in units of what is allowed."""
        allowed_D = self.allowed * size_D + torch.finfo(torch.float64).tiny
        worst = ((self.found_D - out_D).abs() / allowed_D).max().item()
        return math.inf if math.isnan(worst) else worst

    def seeing(self, seen_K: Tensor) -> "_Row":
        """The row with another mask."""
        return replace(self, seen_K=seen_K)

    def flipped(self, key: int) -> "_Row":
        """The row with one key seen that is hidden, or hidden that is seen."""
        seen_K = self.seen_K.clone()
        seen_K[key] = ~seen_K[key]
        return self.seeing(seen_K)

    def sums(self, terms_K: Tensor) -> Tensor:
        """The output for each key alone as a sum yet to be divided, with the divisor last: `[K, D + 1]`."""
        return torch.cat([terms_K[:, None] * self.v_GKD[self.group], terms_K[:, None]], -1)

    def nearest(self, sums_ND: Tensor, sink: float) -> list[int]:
        """Of N sums as of `sums`, the few whose outputs are nearest to the one found."""
        totals_N1 = (sums_ND[:, -1:] + sink).clamp_min(torch.finfo(torch.float64).tiny)
        misses_N = (sums_ND[:, :-1] / totals_N1 - self.found_D).abs().amax(-1)
        misses_N = misses_N.nan_to_num(nan=math.inf)
        return misses_N.topk(min(4, len(misses_N)), largest=False).indices.tolist()


Explained = Iterator[tuple[float, str, int | None]]
"""How far a cause is from explaining every row, its words, and the key that it names."""

Rows = Sequence[_Row]


def cause_of(
    call: LayerCall, errors: LayerErrors, head: int, spans: Sequence[Span]
) -> Cause | None:
    """What explains the wrong queries of a head; None where nothing tried does.

    Args:
        call: The layer's call that was judged.
        errors: What was found of it.
        head: Which head.
        spans: As for `layer_errors`.
    """
    wrong = errors.wrong_rows[head]
    if not wrong:
        return None
    tried = wrong[:: -(-len(wrong) // _TRIED)]
    wide = {
        sequence: (call.k_BGKD[sequence].double(), call.v_BGKD[sequence].double())
        for sequence, _ in tried
    }
    rows = [
        _row(call, where, head, wide[where[0]], spans[where[0]][0], errors.cell_allowed)
        for where in tried
    ]
    for explainers in (_RULES, _SEARCHES):
        found = [one for explain in explainers for one in explain(rows) if one[0] <= 1]
        if found:
            _, words, key = min(found, key=lambda one: one[0])
            start = rows[0].start
            return Cause(
                layer=call.layer,
                head=head,
                query=tried[0][1] - start,
                key=None if key is None else key - start,
                words=words,
            )
    return None


def _row(
    call: LayerCall,
    where: tuple[int, int],
    head: int,
    keys_and_values: tuple[Tensor, Tensor],
    start: int,
    allowed: float,
) -> _Row:
    sequence, query = where
    rows = rows_of(call, sequence, range(query, query + 1))
    at, keys, device = rows.call.query_offset, rows.call.key_length, rows.q_BHQD.device
    every_K = torch.ones(keys, dtype=torch.bool, device=device)
    padding_BK = rows.visible_keys_BK
    return _Row(
        at=at,
        start=start,
        q_D=rows.q_BHQD[0, head, 0].double(),
        k_GKD=keys_and_values[0],
        v_GKD=keys_and_values[1],
        unpadded_K=every_K if padding_BK is None else padding_BK[0],
        unmasked_K=visible(rows.call.pattern, range(at, at + 1), range(keys), device=device)[0],
        seen_K=rows.seen().reshape(-1),
        group=head // rows.call.group_size,
        scale=call.scale,
        softcap=call.softcap,
        sink=None if call.sinks_H is None else call.sinks_H[head].item(),
        bias_K=torch.zeros(keys, dtype=torch.float64, device=device)
        if rows.distance_bias_HR is None
        else rows.distance_bias_HR[head].double(),
        found_D=rows.out_BHQD[0, head, 0].double(),
        allowed=allowed,
    )


def _unwritten(rows: Rows) -> Explained:
    if not any(row.found_D.isfinite().any() for row in rows):
        yield 0.0, "Its wrong queries hold no number (NaN or infinity), as if never written.", None
    if not any(row.found_D.any() for row in rows):
        yield 0.0, "Its wrong queries are all zeros.", None


def _size(rows: Rows) -> Explained:
    """A factor on the right output: one that was not divided by its sum, or divided twice."""
    rights = [_right(row) for row in rows]
    most = max(rights, key=lambda one: one[0].norm().item())
    at = next(index for index, one in enumerate(rights) if one is most)
    factor = ((rows[at].found_D @ most[0]) / (most[0] @ most[0])).item()
    if factor == 0 or not math.isfinite(factor):
        return
    miss = max(
        row.distance(factor * out_D, abs(factor) * size_D)
        for row, (out_D, size_D) in zip(rows, rights, strict=True)
    )
    yield miss, f"It is {factor:.4g} times what it should be.", None


def _right(row: _Row) -> tuple[Tensor, Tensor]:
    terms_K, sink = row.terms()
    sums_D = row.sums(terms_K * row.seen_K).sum(0)
    total, v_KD = sums_D[-1] + sink, row.v_GKD[row.group]
    return sums_D[:-1] / total, (terms_K * row.seen_K) @ v_KD.abs() / total


def _other_group(rows: Rows) -> Explained:
    own = rows[0].group
    for group in range(rows[0].k_GKD.shape[0]):
        if group == own:
            continue
        both = max(replace(row, group=group).miss() for row in rows)
        keys = max(replace(row, group=group).miss(row.v_GKD[own]) for row in rows)
        values = max(row.miss(row.v_GKD[group]) for row in rows)
        yield both, f"It reads kv head {group}, and its own is {own}.", None
        yield keys, f"It reads the keys of kv head {group}, and its own is {own}.", None
        yield values, f"It reads the values of kv head {group}, and its own is {own}.", None


def _one_key(rows: Rows) -> Explained:
    """One key too many or too few: at one distance from every wrong query, or one for all, or one of its own."""
    first, *others = rows
    for key in _flips(first):
        back, miss = first.at - key, first.flipped(key).miss()
        near = [
            row.flipped(row.at - back).miss()
            for row in others
            if 0 <= row.at - back < len(row.seen_K)
        ]
        same = [row.flipped(key).miss() for row in others]
        words = _key_words(first, key)
        if len(near) == len(others) and max(near, default=0) <= 1:
            also = ", and so with the key at that distance from every wrong query" if others else ""
            yield max([miss, *near]), f"{words}{also}.", key
        elif max(same, default=0) <= 1:
            yield max([miss, *same]), f"{words}, here as in every other wrong query.", key
        elif all(_flips(row) for row in others):
            yield miss, f"{words}; every other wrong query has such a key of its own.", key


def _flips(row: _Row) -> list[int]:
    """The keys each of which, seen where it is hidden or hidden where it is seen, explains the output."""
    terms_K, sink = row.terms()
    sums_KD = row.sums(terms_K * row.seen_K)
    with_KD = sums_KD.sum(0) + row.sums(terms_K)
    without_KD = _before(sums_KD) + _before(sums_KD.flip(0)).flip(0)
    likely = row.nearest(without_KD.where(row.seen_K[:, None], with_KD), sink)
    return [key for key in likely if row.flipped(key).miss() <= 1]


def _before(sums_KD: Tensor) -> Tensor:
    """The sum of all before each: never as a difference, in which what is small is lost."""
    return torch.cat([torch.zeros_like(sums_KD[:1]), sums_KD[:-1].cumsum(0)])


def _key_words(row: _Row, key: int) -> str:
    back = row.at - key
    place = {0: "its own", 1: "the one before it", -1: "the one after it"}.get(
        back, f"{abs(back)} {'before' if back > 0 else 'after'} it"
    )
    if not row.unpadded_K[key]:
        place = "which is padding"
    verb = "does not see" if row.seen_K[key] else "sees"
    return f"Query {row.at - row.start} {verb} key {key - row.start}, {place}"


def _other_mask(rows: Rows) -> Explained:
    """A whole part of the mask left out."""
    yield _seeing(rows, lambda row: row.unmasked_K), "It sees padding.", None
    causal = _seeing(rows, lambda row: _keys(row) <= row.at)
    yield (
        causal,
        "It sees every key up to its own: its pattern is left out but for causality.",
        None,
    )
    yield (
        _seeing(rows, lambda row: row.unpadded_K),
        "It sees every key: its mask is left out.",
        None,
    )


def _seeing(rows: Rows, seen_K: Callable[[_Row], Tensor]) -> float:
    return max(row.seeing(seen_K(row)).miss() for row in rows)


def _keys(row: _Row) -> Tensor:
    return torch.arange(len(row.seen_K), device=row.seen_K.device)


def _lost_keys(rows: Rows) -> Explained:
    """Keys from some position on, or before it, that nobody sees: a tile that was skipped."""
    row = rows[-1]
    terms_K, sink = row.terms()
    sums_KD = row.sums(terms_K * row.seen_K)
    for cut in row.nearest(_before(sums_KD), sink):
        miss = _seeing(rows, lambda row, cut=cut: row.seen_K & (_keys(row) < cut))
        yield miss, f"Its keys from {cut - row.start} on are not seen.", None
    for cut in row.nearest(sums_KD.flip(0).cumsum(0).flip(0), sink):
        miss = _seeing(rows, lambda row, cut=cut: row.seen_K & (_keys(row) >= cut))
        yield miss, f"Its keys before {cut - row.start} are not seen.", None


def _other_window(rows: Rows) -> Explained:
    """A causal window of another width."""
    row = rows[-1]
    terms_K, sink = row.terms()
    past_K = (_keys(row) <= row.at) & row.unpadded_K
    backwards_KD = row.sums(terms_K * past_K)[: row.at + 1].flip(0).cumsum(0)
    for place in row.nearest(backwards_KD, sink):
        window = place + 1
        miss = _seeing(
            rows,
            lambda row, window=window: (
                (_keys(row) <= row.at) & (_keys(row) > row.at - window) & row.unpadded_K
            ),
        )
        yield miss, f"It sees the last {window} keys: a window of another width.", None


def _other_softmax(rows: Rows) -> Explained:
    if rows[0].sink is not None:
        miss = max(replace(row, sink=None).miss() for row in rows)
        yield miss, "Its sink is left out of the softmax.", None
    if rows[0].softcap is not None:
        miss = max(replace(row, softcap=None).miss() for row in rows)
        yield miss, f"Its scores are not capped at {rows[0].softcap:g}.", None
    if any(bool(row.bias_K.any()) for row in rows):
        miss = max(replace(row, bias_K=torch.zeros_like(row.bias_K)).miss() for row in rows)
        yield miss, "Its bias by distance is left out.", None


def _other_scale(rows: Rows) -> Explained:
    if max(int(row.seen_K.sum()) for row in rows) < _LEAST_KEYS:
        return
    right = rows[0].scale

    def miss(octaves: float) -> float:
        return max(replace(row, scale=right * 2.0**octaves).miss() for row in rows)

    steps = range(-_OCTAVES * _PARTS, _OCTAVES * _PARTS + 1)
    best = min(steps, key=lambda step: miss(step / _PARTS)) / _PARTS
    octaves = _lowest(miss, best - 1 / _PARTS, best + 1 / _PARTS)
    factor = 2.0**octaves
    words = (
        f"Its scores are scaled by {right * factor:.5g}, {factor:.4g} times the right {right:.5g}."
    )
    yield miss(octaves), words, None


def _lowest(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one valley is lowest, by golden sections (Kiefer 1953)."""
    share = (math.sqrt(5) - 1) / 2
    for _ in range(48):
        left, right = high - share * (high - low), low + share * (high - low)
        if function(left) < function(right):
            high = right
        else:
            low = left
    return (low + high) / 2


_RULES = (
    *(_unwritten, _other_group, _one_key, _other_softmax, _other_mask, _lost_keys, _other_window),
    _size,
)
_SEARCHES = (_other_scale,)
"""What takes long, and is tried last."""
