"""Attention whose weights are φ(q)·φ(k), in time linear in the length, in plain PyTorch.

The sum over the keys, φ(q)·Σ φ(k) vᵀ, is taken before the product with the query. Under a causal
rule the sum grows along the sequence: the keys come in chunks, a query reads the sum of the chunks
before its own, and its own chunk pair by pair. No n×n matrix, and no features but a chunk's.

B batch, H query heads, G kv heads, g query heads that share one, Q queries, K keys, D head dim,
F features, V value dim and one column more; C keys of a chunk, R rows (queries, once for each g).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from attnscope.kernels.approximate.feature_maps import LogFeatures
from attnscope.kernels.scores import accumulation_dtype

CHUNK = 128
"""Keys of a chunk: of 32 to 512, the fastest or next to it on a CPU, for heads of 64."""


def linear_attention(
    q_BHQD: Tensor,
    k_BGKD: Tensor,
    v_BGKD: Tensor,
    log_features: LogFeatures,
    *,
    causal: bool,
    query_offset: int = 0,
    visible_keys_BK: Tensor | None = None,
    chunk: int = CHUNK,
) -> Tensor:
    """out_i = Σ_j φ(q_i)·φ(k_j) v_j / Σ_j φ(q_i)·φ(k_j) (arXiv 2006.16236 eqs. 4, 5, 9).

    Differentiable. Sums in float32 (float64 for float64 inputs), relative to each feature's largest
    key so far; a key is lost where in every feature it lies more than 87 nats under another of its
    chunk, float32's range.

    Args:
        q_BHQD: `[B, H, Q, D]`, any strides.
        k_BGKD: `[B, G, K, D]`, not repeated for the query heads that share it.
        v_BGKD: `[B, G, K, value_dim]`.
        log_features: log φ.
        causal: Whether a query sees only the keys up to its own position; otherwise all.
        query_offset: Absolute position of the first query.
        visible_keys_BK: bool, False where a key is padding; its contents are ignored.
        chunk: Keys at a time.

    Returns:
        `[B, H, Q, value_dim]` in the dtype of `v_BGKD`; 0 in a row that sees nothing.
    """
    queries, keys, group = q_BHQD.shape[2], k_BGKD.shape[2], q_BHQD.shape[1] // k_BGKD.shape[1]
    if causal:
        # What no query sees may never have been written.
        keys = min(keys, query_offset + queries)
    q_BGgQD = q_BHQD.unflatten(1, (-1, group))
    # Joined at the end: written into one tensor, each piece's gradient would copy the whole.
    pieces: list[Tensor] = []
    # The features of no key: they say how many there are.
    sums, answered = _Sums.none(_log(k_BGKD[:, :, :0], log_features), v_BGKD), 0
    for start in range(0, keys, chunk):
        keys_here = slice(start, min(start + chunk, keys))
        here = _Chunk.of(k_BGKD, v_BGKD, visible_keys_BK, log_features, keys_here)
        sums = sums.relative_to(here)
        rows = slice(answered, max(keys_here.stop - query_offset, 0) if causal else 0)
        if rows.start < rows.stop:
            first = rows.start + query_offset - start
            q_BGRF = sums.features(q_BGgQD[:, :, :, rows], log_features)
            pieces.append(_answer_within(q_BGRF, sums, here, group, first).to(v_BGKD.dtype))
            # Or the next chunk's would be made beside them.
            del q_BGRF
            answered = rows.stop
        sums = sums.plus(here)
    for start in range(answered, queries, chunk):
        rows = slice(start, start + chunk)
        total_BGRV = sums.features(q_BGgQD[:, :, :, rows], log_features) @ sums.sum_BGFV
        pieces.append(_quotient(total_BGRV, group).to(v_BGKD.dtype))
    return torch.cat(pieces, dim=3).flatten(1, 2)


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Log features of some keys, −inf where one is padding, and their values with a column of 1."""

    log_BGCF: Tensor
    v_BGCV: Tensor

    @classmethod
    def of(
        cls,
        k_BGKD: Tensor,
        v_BGKD: Tensor,
        visible_keys_BK: Tensor | None,
        log_features: LogFeatures,
        keys: slice,
    ) -> "_Chunk":
        log_BGCF = _log(k_BGKD[:, :, keys], log_features)
        v_BGCV = pad(v_BGKD[:, :, keys].to(log_BGCF.dtype), (0, 1), value=1.0)
        if visible_keys_BK is None:
            return cls(log_BGCF, v_BGCV)
        hidden_B1C1 = ~visible_keys_BK[:, None, keys, None]
        return cls(
            log_BGCF.masked_fill(hidden_B1C1, -torch.inf), v_BGCV.masked_fill(hidden_B1C1, 0)
        )


@dataclass(frozen=True, slots=True)
class _Sums:
    """Σ φ(k) [v, 1]ᵀ of the keys so far: feature f is relative to exp of its highest.

    The normaliser is the last column, the sum of values that are all 1. A query's features are
    raised by what the keys' were lowered, so every product, and the quotient, is what it was.
    """

    sum_BGFV: Tensor
    highest_BG1F: Tensor

    @classmethod
    def none(cls, log_BG0F: Tensor, v_BGKD: Tensor) -> "_Sums":
        batch, kv_heads, _, features = log_BG0F.shape
        # The lowest number, not −inf: −inf − (−inf) would be NaN where all keys are padding.
        lowest = torch.finfo(log_BG0F.dtype).min
        return cls(
            sum_BGFV=log_BG0F.new_zeros(batch, kv_heads, features, v_BGKD.shape[3] + 1),
            highest_BG1F=log_BG0F.new_full((batch, kv_heads, 1, features), lowest),
        )

    def relative_to(self, here: _Chunk) -> "_Sums":
        """The same sums, with these keys among those that the highest is taken of."""
        here_BG1F = here.log_BGCF.detach().amax(2, keepdim=True)
        highest_BG1F = torch.maximum(self.highest_BG1F, here_BG1F)
        shrink_BGF1 = (self.highest_BG1F - highest_BG1F).exp().mT
        return _Sums(self.sum_BGFV * shrink_BGF1, highest_BG1F)

    def plus(self, here: _Chunk) -> "_Sums":
        """The sums with these keys in them, whose highest is known already."""
        features_BGFC = (here.log_BGCF - self.highest_BG1F).exp().mT
        return _Sums(self.sum_BGFV + features_BGFC @ here.v_BGCV, self.highest_BG1F)

    def features(self, q_BGgRD: Tensor, log_features: LogFeatures) -> Tensor:
        """φ of queries, each row relative to its own highest, which the quotient loses again."""
        log_BGRF = _log(q_BGgRD.flatten(2, 3), log_features) + self.highest_BG1F
        return (log_BGRF - log_BGRF.detach().amax(-1, keepdim=True)).exp()


def _log(t_D: Tensor, log_features: LogFeatures) -> Tensor:
    return log_features(t_D.to(accumulation_dtype(t_D.dtype)))


def _answer_within(q_BGRF: Tensor, sums: _Sums, here: _Chunk, group: int, first: int) -> Tensor:
    """Queries among the keys of a chunk, after the sums of all chunks before.

    Args:
        q_BGRF: φ of the queries, the heads of a group one after the other.
        sums: Of the chunks before, relative to a highest that has seen this one.
        here: The chunk.
        group: Query heads that share a kv head, g.
        first: The first query's own key in the chunk.

    Returns:
        `[B, G, g, R / g, value_dim]`.
    """
    weights_BGRC = q_BGRF @ (here.log_BGCF - sums.highest_BG1F).exp().mT
    weights_BGRC = weights_BGRC.unflatten(2, (group, -1)).tril(first).flatten(2, 3)
    return _quotient(q_BGRF @ sums.sum_BGFV + weights_BGRC @ here.v_BGCV, group)


def _quotient(total_BGRV: Tensor, group: int) -> Tensor:
    normaliser_BGR1 = total_BGRV[..., -1:]
    out_BGRV = total_BGRV[..., :-1] / normaliser_BGR1.masked_fill(normaliser_BGR1 == 0, 1.0)
    return out_BGRV.unflatten(2, (group, -1))
