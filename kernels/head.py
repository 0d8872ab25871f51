"""One query head of one sequence, as a map needs it.

Q, K positions, D head dim.
"""

from dataclasses import dataclass

from torch import Tensor

from attnscope.kernels import distance_bias
from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.streaming import Layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What one query head attended with, for one sequence; it holds views, and copies nothing.

    Attributes:
        q_QD: Queries as the kernel saw them (after rotary position), any floating dtype.
        k_KD: Keys of the kv head that this query head reads.
        lse_Q: Natural log-sum-exp of each query's visible scores, sink included; −inf where
            nothing is seen.
        pattern: Which pairs are visible, in absolute positions.
        query_offset: Absolute position of the first query.
        scale: Multiplies q·k.
        softcap: Bound of the scores, or None.
        sink: Extra logit in the softmax's denominator (gpt-oss), or None. `lse_Q` holds it already.
        visible_keys_K: bool, False where a key is padding; None when nothing is padded.
        value_norm_K: `‖v_j‖`, for the reading "value_weighted"; None where values were not kept.
        distance_bias_R: float32 `[Q + K − 1]`, added to the scores after softcap, see
            `kernels/distance_bias.py`; None where nothing is.

    Raises:
        InvalidCall: The shapes contradict each other.
    """

    q_QD: Tensor
    k_KD: Tensor
    lse_Q: Tensor
    pattern: Pattern
    query_offset: int
    scale: float
    softcap: float | None = None
    sink: float | None = None
    visible_keys_K: Tensor | None = None
    value_norm_K: Tensor | None = None
    distance_bias_R: Tensor | None = None

    def __post_init__(self) -> None:
        if self.q_QD.ndim != 2 or self.k_KD.ndim != 2:
            raise InvalidCall(
                f"q and k of one head must be [positions, dim], got {tuple(self.q_QD.shape)} and "
                f"{tuple(self.k_KD.shape)}."
            )
        _check_length("lse_Q", self.lse_Q, self.query_length)
        _check_length("visible_keys_K", self.visible_keys_K, self.key_length)
        _check_length("value_norm_K", self.value_norm_K, self.key_length)
        distances = distance_bias.columns(self.query_length, self.key_length)
        _check_length("distance_bias_R", self.distance_bias_R, distances)

    @property
    def query_length(self) -> int:
        """Q, tokens."""
        return self.q_QD.shape[0]

    @property
    def key_length(self) -> int:
        """K, tokens."""
        return self.k_KD.shape[0]

    @property
    def layer(self) -> Layer:
        """This head as a layer of one head."""
        return Layer(
            q_HQD=self.q_QD[None],
            k_GKD=self.k_KD[None],
            pattern=self.pattern,
            query_offset=self.query_offset,
            scale=self.scale,
            softcap=self.softcap,
            visible_keys_K=self.visible_keys_K,
            distance_bias_HR=None if self.distance_bias_R is None else self.distance_bias_R[None],
        )


def _check_length(name: str, values: Tensor | None, length: int) -> None:
    if values is not None and tuple(values.shape) != (length,):
        raise InvalidCall(f"{name} must have shape [{length}], got {tuple(values.shape)}.")
