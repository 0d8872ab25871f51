"""One pass over the heads of a layer that takes every diagnostic of every query.

The diagnostics that are sums over a query's keys may be handed in, as Triton's kernel computes them;
what needs a row in order, the keys that hold 95 % of it, is always read here.

H query heads, Q, K positions; R queries and C keys of one block, S keys that a block of queries
visits, F features of a pair.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from attnscope.kernels.streaming import BLOCK_KEYS, HIGHEST_LOG, LOWEST_LOG, Layer, segments

ROW_BLOCK_PAIRS = 1 << 20
"""Pairs of one block of whole rows over all its heads: 4 MiB of float32."""
HELD_SHARE = 0.95
_NOTHING = 1e-30
_NO_TOKEN, _NO_QUERY = -(1 << 62), -(1 << 62) - 1
_ROUNDING = 1e-5


class Survey:
    """What the blocks of one layer have in common."""

    def __init__(
        self,
        layer: Layer,
        lse_HQ: Tensor,
        sinks_H: Tensor | None,
        token_ids_K: Tensor | None,
        windows: tuple[int, ...],
        sinks: int,
    ) -> None:
        self._layer, self._windows = layer, windows
        self._sums_HQ: dict[str, Tensor] | None = None
        self._lse_HQ = lse_HQ.masked_fill(lse_HQ == -torch.inf, torch.inf)
        self._sinks_H = sinks_H
        device, length = layer.q_HQD.device, layer.key_length
        shown_K = layer.visible_keys_K
        shown_K = (
            torch.ones(length, dtype=torch.bool, device=device) if shown_K is None else shown_K
        )
        self._sink_K = shown_K & (shown_K.cumsum(0) <= sinks)
        self._at_Q = torch.arange(layer.query_length, device=device) + layer.query_offset
        self._own_Q = _taken(shown_K, self._at_Q, beyond=True)
        self._previous_Q = _taken(shown_K, self._at_Q - 1, beyond=False)
        self._tokens_K: Tensor | None = None
        if token_ids_K is not None:
            # A hidden token equals nothing: not even another hidden one.
            unique_K = -1 - torch.arange(length, device=device)
            self._tokens_K = torch.where(shown_K, token_ids_K.to(device).long(), unique_K)
            self._tokens_Q = _taken(self._tokens_K, self._at_Q, beyond=_NO_QUERY)
            self._repeated_Q = _taken(_occurred_before(self._tokens_K), self._at_Q, beyond=False)

    def take_sums_by_triton(self) -> None:
        """Reads everything that is a sum over keys at once, for all heads.

        Raises:
            UnsupportedCall: The pattern has so little structure that the kernel does not take it.
        """
        from attnscope.kernels.triton.maps_rows import Tokens, row_sums

        tokens = None
        if self._tokens_K is not None:
            # Nothing stands before the first key, and no query has that token.
            before_K = torch.nn.functional.pad(self._tokens_K[:-1], (1, 0), value=_NO_TOKEN)
            tokens = Tokens(of_Q=self._tokens_Q, of_K=self._tokens_K, before_K=before_K)
        self._sums_HQ = row_sums(self._layer, self._lse_HQ, self._sink_K, self._windows, tokens)

    @property
    def features(self) -> tuple[str, ...]:
        """Names of what `worth` gives, in its order."""
        tokens = () if self._tokens_K is None else ("duplicate_token", "induction")
        windows = tuple(f"window_mass_{window}" for window in self._windows)
        return ("mass", "mean_distance", "sink_mass", "previous_token", *tokens, *windows)

    def heads(
        self, groups: slice, progress: Callable[[float], None] | None, share: tuple[float, float]
    ) -> dict[str, Tensor]:
        """The diagnostics of the query heads of some kv heads: float64 `[heads]` by name."""
        layer = self._layer
        size = layer.heads // layer.k_GKD.shape[0]
        some = slice(groups.start * size, groups.stop * size)
        part = layer.of_heads(some, groups).key_major()
        pairs_a_row = max(part.heads * layer.key_length, len(self.features) * BLOCK_KEYS)
        step = min(layer.query_length, max(1, ROW_BLOCK_PAIRS // pairs_a_row))
        sums, counts = {}, {}
        for start in range(0, layer.query_length, step):
            queries = slice(start, min(start + step, layer.query_length))
            rows, visible_R = self._rows(part, some, queries)
            for name, values_HR in rows.items():
                kept_R = self._counted(name, queries, visible_R)
                sums[name] = (
                    sums.get(name, 0) + torch.where(kept_R, values_HR, 0.0).sum(-1).double()
                )
                counts[name] = counts.get(name, 0) + kept_R.sum()
            if progress is not None:
                progress(share[0] + share[1] * queries.stop / layer.query_length)
        return {name: total_H / counts[name] for name, total_H in sums.items()}

    def _counted(self, name: str, queries: slice, visible_R: Tensor) -> Tensor:
        """Which queries of a block a diagnostic is averaged over, bool `[R]`."""
        counted_R = (visible_R > 0) & self._own_Q[queries]
        if name == "entropy_share":
            return counted_R & (visible_R > 1)
        if name == "previous_token":
            return counted_R & self._previous_Q[queries]
        if name in ("duplicate_token", "induction"):
            return counted_R & self._repeated_Q[queries]
        return counted_R

    def _rows(self, part: Layer, heads: slice, queries: slice) -> tuple[dict[str, Tensor], Tensor]:
        """Every diagnostic of every query of a block `[H, R]`, and the keys each sees `[R]`."""
        lse_HR = self._lse_HQ[heads, queries]
        weights_HRS, visible_R, values = self._read(part, lse_HR, queries)
        if self._sums_HQ is not None:
            values = {name: sums_HQ[heads, queries] for name, sums_HQ in self._sums_HQ.items()}
        mass_HR, log_HR = values.pop("mass"), values.pop("log")
        held = mass_HR > _NOTHING
        safe_HR = mass_HR.where(held, 1.0)
        entropy_HR = torch.where(held, safe_HR.log() - log_HR / safe_HR, 0.0)
        values["mean_distance"] = values["mean_distance"] / safe_HR
        values["entropy_nats"] = entropy_HR
        values["entropy_share"] = entropy_HR / visible_R.clamp_min(2).log()
        keys_HR = _keys_held(weights_HRS, mass_HR).minimum(visible_R)
        values["keys_for_95"] = keys_HR / visible_R.clamp_min(1)
        values["sink_logit_share"] = (
            torch.zeros_like(lse_HR)
            if self._sinks_H is None
            else (self._sinks_H[heads].to(lse_HR)[:, None] - lse_HR).exp()
        )
        return values, visible_R

    def _read(
        self, part: Layer, lse_HR: Tensor, queries: slice
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Weights `[H, R, S]`, the keys each query sees `[R]`, and the sums unless they were taken."""
        rows = lse_HR.shape[1]
        index = torch.arange(queries.start, queries.stop, device=lse_HR.device)
        visible_R = torch.zeros(rows, dtype=torch.int64, device=lse_HR.device)
        sums_RHF = torch.zeros(rows, part.heads, len(self.features), device=lse_HR.device)
        log_HR = torch.zeros_like(lse_HR)
        pieces = []
        every = range(part.key_length)
        for segment in segments(
            part, queries.start, queries.stop - 1, every, limit=BLOCK_KEYS, apart=False
        ):
            keys = range(segment.start, segment.end)
            seen_RC = part.seen(index, keys)
            visible_R += seen_RC.sum(-1)
            hidden_RC = torch.zeros_like(seen_RC, dtype=lse_HR.dtype).masked_fill_(
                ~seen_RC, -torch.inf
            )
            x_HRC = part.scores(queries, slice(segment.start, segment.end))
            # A weight of 1.8e-35 stands for 0: it adds nothing to any sum, nor does its log.
            x_HRC.sub_(lse_HR[..., None]).add_(hidden_RC).clamp_(LOWEST_LOG, HIGHEST_LOG)
            weights_HRC = x_HRC.exp()
            pieces.append(weights_HRC)
            if self._sums_HQ is None:
                log_HR += x_HRC.mul_(weights_HRC).sum(-1)
                features_RFC = self.worth(queries, keys).to(weights_HRC.dtype)
                sums_RHF = sums_RHF + torch.bmm(weights_HRC.transpose(0, 1), features_RFC.mT)
        if not pieces:
            pieces = [torch.zeros(part.heads, rows, 1, device=lse_HR.device)]
        weights_HRS = pieces[0] if len(pieces) == 1 else torch.cat(pieces, -1)
        sums = dict(zip(self.features, sums_RHF.permute(2, 1, 0), strict=True))
        return weights_HRS, visible_R, {**sums, "log": log_HR}

    def worth(self, queries: slice, keys: range) -> Tensor:
        """What a pair is worth to each diagnostic that is a sum: float32 `[R, F, C]`."""
        at_R1 = self._at_Q[queries, None]
        shape = (len(at_R1), len(self.features), len(keys))
        worth_RFC = torch.zeros(shape, dtype=torch.float32, device=at_R1.device)
        worth = dict(zip(self.features, worth_RFC.unbind(1), strict=True))
        key_C = torch.arange(keys.start, keys.stop, device=at_R1.device)
        worth["mass"].fill_(1.0)
        torch.sub(at_R1.float(), key_C.float(), out=worth["mean_distance"]).abs_()
        worth["sink_mass"].copy_(self._sink_K[keys.start : keys.stop].expand(shape[0], shape[2]))
        if self._tokens_K is not None:
            # A key follows an earlier occurrence exactly if the key before it is one.
            every = range(keys.start - 1, keys.stop)
            same = self._same_before(self._tokens_K, queries, every)
            worth["duplicate_token"].copy_(same[:, 1:])
            worth["induction"].copy_(same[:, :-1])
        near = self._near(queries, keys, 2)
        worth["previous_token"][:, near] = at_R1 - key_C[near] == 1
        for window in self._windows:
            near = self._near(queries, keys, window)
            worth[f"window_mass_{window}"][:, near] = (at_R1 - key_C[near]).abs() < window
        return worth_RFC

    def _near(self, queries: slice, keys: range, reach: int) -> slice:
        """The keys less than `reach` from some query of the block: indices into `keys`."""
        first = queries.start + self._layer.query_offset - reach + 1 - keys.start
        last = queries.stop + self._layer.query_offset + reach - 1 - keys.start
        return slice(min(max(first, 0), len(keys)), min(max(last, 0), len(keys)))

    def _same_before(self, tokens_K: Tensor, queries: slice, keys: range) -> Tensor:
        """Whether a key is an earlier occurrence of the query's token: bool `[R, C]`; no at −1."""
        key_C = torch.arange(keys.start, keys.stop, device=self._at_Q.device)
        token_C = _taken(tokens_K, key_C, beyond=_NO_TOKEN)
        same_RC = token_C == self._tokens_Q[queries, None]
        first_at = queries.start + self._layer.query_offset
        later = slice(min(max(first_at - keys.start, 0), len(keys)), None)
        same_RC[:, later] &= key_C[later] < self._at_Q[queries, None]
        return same_RC


def _taken(values_K: Tensor, at_Q: Tensor, *, beyond: bool | int) -> Tensor:
    """`values_K` at the positions, and `beyond` where there is no such key: `[Q]`."""
    inside = (at_Q >= 0) & (at_Q < len(values_K))
    return torch.where(inside, values_K[at_Q.clamp(0, len(values_K) - 1)], beyond)


def _occurred_before(tokens_K: Tensor) -> Tensor:
    """Whether an earlier position holds the same token: bool `[K]`."""
    _, which_K = torch.unique(tokens_K, return_inverse=True)
    order_K = torch.arange(len(tokens_K), device=tokens_K.device)
    first = torch.full_like(which_K, len(tokens_K)).scatter_reduce(0, which_K, order_K, "amin")
    return first[which_K] < order_K


def _keys_held(weights_HRS: Tensor, mass_HR: Tensor) -> Tensor:
    """The fewest keys that hold 95 % of each row's mass: `[H, R]`; sorts the weights in place."""
    tail_HR = mass_HR * ((1 - HELD_SHARE) * (1 + _ROUNDING))
    ascending_HRS = _sorted(weights_HRS)
    # Cumulated weights are in order, so the row is not counted but searched.
    left_out_HR1 = torch.searchsorted(
        ascending_HRS.cumsum_(-1), tail_HR.contiguous()[..., None], right=True
    )
    return weights_HRS.shape[-1] - left_out_HR1[..., 0]


def _sorted(values: Tensor) -> Tensor:
    if values.device.type != "cpu":
        return values.sort(dim=-1).values
    # NumPy sorts rows with vector instructions, about twenty times faster than torch does here.
    values.numpy().sort(axis=-1)
    return values
