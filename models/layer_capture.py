"""One layer of a captured pass: q, k and log-sum-exp of every head, for the batch or a sequence.

B batch, H query heads, G kv heads, Q and K positions, D head dim.
"""

import threading
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attnscope.kernels import distance_bias, maps
from attnscope.kernels.patterns.causal import Causal
from attnscope.kernels.patterns.full import Full
from attnscope.kernels.patterns.local import Local
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.patterns.predicate import Predicate
from attnscope.kernels.patterns.sliding_window import SlidingWindow
from attnscope.kernels.streaming import Layer
from attnscope.models.sides import Attention

_SHIFT_INVARIANT = (Full, Causal, SlidingWindow, Local)


class LogSumExp:
    """A layer's log-sum-exp: the backend's own, or streamed from q and k when first asked for."""

    __slots__ = ("_lock", "_values")

    def __init__(self, values: Tensor | None) -> None:
        self._values = values
        self._lock = threading.Lock()

    def of(self, layer: "LayerCapture") -> Tensor:
        """float32 `[B, H, Q]`."""
        with self._lock:
            if self._values is None:
                self._values = _stream(layer)
            return self._values


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerView:
    """One layer of one sequence without its padding: what maps and diagnostics are made from.

    Attributes:
        q_HQD: Queries.
        k_GKD: Keys, kv heads not repeated.
        lse_HQ: float32, natural, sink included; −inf where nothing is seen.
        value_norm_GK: float32, ‖v‖ of every key.
        pattern: In positions of this sequence: its first token is at 0.
        query_offset: Position of the first query.
        scale: Multiplies q·k.
        softcap: Bound of the scores, or None.
        sinks_H: A sink logit per head, or None.
        visible_keys_K: bool, False where a key inside the sequence is hidden; None where none is.
        v_GKD: Values, where the capture kept them.
        distance_bias_HR: float32 `[H, Q + K − 1]`, see `kernels/distance_bias.py`, or None.
    """

    q_HQD: Tensor
    k_GKD: Tensor
    lse_HQ: Tensor
    value_norm_GK: Tensor
    pattern: Pattern
    query_offset: int
    scale: float
    softcap: float | None
    sinks_H: Tensor | None
    visible_keys_K: Tensor | None
    v_GKD: Tensor | None
    distance_bias_HR: Tensor | None = None

    @property
    def layer(self) -> Layer:
        """What its heads attended with."""
        return Layer(
            q_HQD=self.q_HQD,
            k_GKD=self.k_GKD,
            pattern=self.pattern,
            query_offset=self.query_offset,
            scale=self.scale,
            softcap=self.softcap,
            visible_keys_K=self.visible_keys_K,
            distance_bias_HR=self.distance_bias_HR,
        )

    def head(self, head: int) -> maps.Head:
        """One query head, as views."""
        group = head * self.k_GKD.shape[0] // self.q_HQD.shape[0]
        return maps.Head(
            q_QD=self.q_HQD[head],
            k_KD=self.k_GKD[group],
            lse_Q=self.lse_HQ[head],
            pattern=self.pattern,
            query_offset=self.query_offset,
            scale=self.scale,
            softcap=self.softcap,
            sink=None if self.sinks_H is None else float(self.sinks_H[head]),
            visible_keys_K=self.visible_keys_K,
            value_norm_K=self.value_norm_GK[group],
            distance_bias_R=None if self.distance_bias_HR is None else self.distance_bias_HR[head],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCapture:
    """What one attention call of the forward pass attended with, for the whole batch.

    Attributes:
        layer: Which layer of its attention, from 0.
        name: The module's name in the model.
        backend: The backend that ran it.
        q_BHQD: After rotary embedding, in the model's dtype; dense, in any order of dimensions.
        k_BGKD: Likewise, kv heads not repeated.
        value_norm_BGK: float32, ‖v‖ of every key.
        patterns: One for all sequences, or one per sequence where the rule depends on it.
        query_offset: Position of the first query.
        scale: Multiplies q·k.
        softcap: Bound of the scores, or None.
        sinks_H: A sink logit per head, or None.
        visible_keys_BK: bool, False where a key is padding; None when nothing is padded.
        log_sum_exp: The holder of `lse_BHQ`.
        v_BGKD: Values in the model's dtype; None where they were not asked for.
        attention: Whose it is, of an encoder-decoder.
        distance_bias_HR: float32 `[H, Q + K − 1]`, see `kernels/distance_bias.py`, or None.
    """

    layer: int
    name: str
    backend: str
    q_BHQD: Tensor
    k_BGKD: Tensor
    value_norm_BGK: Tensor
    patterns: tuple[Pattern, ...]
    query_offset: int
    scale: float
    softcap: float | None
    sinks_H: Tensor | None
    visible_keys_BK: Tensor | None
    log_sum_exp: LogSumExp = field(repr=False)
    v_BGKD: Tensor | None = None
    attention: Attention = "self"
    distance_bias_HR: Tensor | None = None

    @property
    def pattern(self) -> Pattern:
        """The first sequence's pattern, which is every sequence's in all but a few models."""
        return self.patterns[0]

    @property
    def lse_BHQ(self) -> Tensor:
        """float32 `[B, H, Q]`, natural, sink included; streamed at first use if not given."""
        return self.log_sum_exp.of(self)

    @property
    def nbytes(self) -> int:
        """Bytes held, padding mask aside: the log-sum-exp is counted from the start."""
        held = (
            *(self.q_BHQD, self.k_BGKD, self.value_norm_BGK, self.v_BGKD),
            *(self.sinks_H, self.distance_bias_HR),
        )
        return 4 * self.q_BHQD[..., 0].numel() + sum(one.nbytes for one in held if one is not None)

    def pattern_of(self, sequence: int) -> Pattern:
        """One sequence's pattern, in positions of the padded batch."""
        return self.patterns[sequence if len(self.patterns) > 1 else 0]

    def view(self, sequence: int, queries: slice, keys: slice) -> LayerView:
        """The tokens of one sequence, without its padding, as views; of self-attention they are the same."""
        seen = self.visible_keys_BK
        seen_K = None if seen is None else seen[sequence, keys]
        return LayerView(
            q_HQD=self.q_BHQD[sequence, :, queries],
            k_GKD=self.k_BGKD[sequence, :, keys],
            lse_HQ=self.lse_BHQ[sequence, :, queries],
            value_norm_GK=self.value_norm_BGK[sequence, :, keys],
            pattern=_shifted(self.pattern_of(sequence), keys.start),
            query_offset=self.query_offset,
            scale=self.scale,
            softcap=self.softcap,
            sinks_H=self.sinks_H,
            visible_keys_K=None if seen_K is None or bool(seen_K.all()) else seen_K,
            v_GKD=None if self.v_BGKD is None else self.v_BGKD[sequence, :, keys],
            distance_bias_HR=self._distance_bias_of(queries, keys),
        )

    def _distance_bias_of(self, queries: slice, keys: slice) -> Tensor | None:
        if self.distance_bias_HR is None:
            return None
        length = self.q_BHQD.shape[2]
        parts = (range(part.start, part.stop) for part in (queries, keys))
        return distance_bias.of_part(self.distance_bias_HR, *parts, query_length=length)


def _stream(layer: LayerCapture) -> Tensor:
    seen = layer.visible_keys_BK
    batch = layer.q_BHQD.shape[0]
    parts = (
        [slice(0, batch)]
        if len(layer.patterns) == 1
        else [slice(one, one + 1) for one in range(batch)]
    )
    streamed = [
        maps.log_sum_exp(
            layer.q_BHQD[part],
            layer.k_BGKD[part],
            pattern=layer.pattern_of(part.start),
            query_offset=layer.query_offset,
            scale=layer.scale,
            softcap=layer.softcap,
            sinks_H=layer.sinks_H,
            visible_keys_BK=None if seen is None else seen[part],
            distance_bias_HR=layer.distance_bias_HR,
        )
        for part in parts
    ]
    return streamed[0] if len(streamed) == 1 else torch.cat(streamed)


def _shifted(pattern: Pattern, start: int) -> Pattern:
    """The pattern in positions that count from `start`."""
    if start == 0 or isinstance(pattern, _SHIFT_INVARIANT):
        return pattern

    def visible(query_index: Tensor, key_index: Tensor) -> Tensor:
        return pattern.visible(query_index + start, key_index + start)

    return Predicate(function=visible, label=pattern.title)
