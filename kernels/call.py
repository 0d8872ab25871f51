"""One attention call: its shapes, its dtype and its rule, with no tensor in it; and its answer.

B batch, H query heads, G kv heads, Q and K positions, D head dim.
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from attnscope.kernels import distance_bias
from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.patterns.full import Full
from attnscope.kernels.patterns.pattern import Pattern

Dtype = Literal["float64", "float32", "float16", "bfloat16"]

_SIZES = (
    "batch",
    "query_heads",
    "kv_heads",
    "query_length",
    "key_length",
    "head_dim",
    "value_dim",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionCall:
    """The question a backend answers. Hashable, so plans made from it can be cached.

    Attributes:
        batch: Sequences, B.
        query_heads: H.
        kv_heads: G; divides `query_heads`. 1 is multi-query, H is multi-head.
        query_length: Q, tokens.
        key_length: K, tokens.
        head_dim: Width of queries and keys.
        value_dim: Width of values and of the output.
        dtype: Of q, k and v.
        scale: Multiplies q·k before softcap, bias, mask and softmax.
        pattern: Which pairs are visible, in absolute positions.
        query_offset: Absolute position of the first query: K − Q when the last query aligns with
            the last key (bottom right), 0 for the prefill of a static cache (top left).
        softcap: c in `c * tanh(score / c)`, or None.
        has_sinks: Whether each head has a sink logit that joins the softmax's denominator
            (gpt-oss).
        has_padding: Whether some keys are hidden per sequence.
        has_distance_bias: Whether a bias by distance is added to the scores, after softcap, see
            `kernels/distance_bias.py` (T5, ALiBi).
    """

    batch: int
    query_heads: int
    kv_heads: int
    query_length: int
    key_length: int
    head_dim: int
    value_dim: int
    dtype: Dtype
    scale: float
    pattern: Pattern = field(default_factory=Full)
    query_offset: int = 0
    softcap: float | None = None
    has_sinks: bool = False
    has_padding: bool = False
    has_distance_bias: bool = False

    def __post_init__(self) -> None:
        for name in _SIZES:
            if getattr(self, name) < 1:
                raise InvalidCall(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.query_heads % self.kv_heads:
            raise InvalidCall(
                f"query_heads must be a multiple of kv_heads, "
                f"got {self.query_heads} and {self.kv_heads}."
            )
        if self.dtype not in get_args(Dtype):
            valid = ", ".join(get_args(Dtype))
            raise InvalidCall(f"dtype must be one of {valid}, got {self.dtype!r}.")
        if self.softcap is not None and self.softcap <= 0:
            raise InvalidCall(f"softcap must be above 0, got {self.softcap}; None for no softcap.")
        if self.query_offset < 0:
            raise InvalidCall(f"query_offset must be 0 or more, got {self.query_offset}.")
        queries = range(self.query_offset, self.query_offset + self.query_length)
        self.pattern.check_lengths(queries, self.key_length)

    @property
    def group_size(self) -> int:
        """Query heads that share one key/value head, H / G."""
        return self.query_heads // self.kv_heads

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as PyTorch names it."""
        return getattr(torch, self.dtype)

    @property
    def kept_pairs(self) -> int:
        """Visible (query, key) pairs of one head of one sequence, padding aside."""
        return self.pattern.kept_pairs(
            self.query_length, self.key_length, query_offset=self.query_offset
        )

    @classmethod
    def of(
        cls,
        q_BHQD: Tensor,
        k_BGKD: Tensor,
        v_BGKD: Tensor,
        *,
        pattern: Pattern | None = None,
        scale: float | None = None,
        query_offset: int | None = None,
        softcap: float | None = None,
        has_sinks: bool = False,
        has_padding: bool = False,
        has_distance_bias: bool = False,
    ) -> "AttentionCall":
        """The call that these tensors make.

        Args:
            q_BHQD: `[B, H, Q, D]`.
            k_BGKD: `[B, G, K, D]`.
            v_BGKD: `[B, G, K, value_dim]`.
            pattern: Full when None.
            scale: `D ** -0.5` when None.
            query_offset: K − Q when None, and never below 0.
            softcap: See the attribute.
            has_sinks: See the attribute.
            has_padding: See the attribute.
            has_distance_bias: See the attribute.

        Raises:
            InvalidCall: The tensors' shapes or dtypes contradict each other.
        """
        _check_tensors(q_BHQD, k_BGKD, v_BGKD)
        batch, query_heads, query_length, head_dim = q_BHQD.shape
        key_length = k_BGKD.shape[2]
        if query_offset is None:
            query_offset = max(key_length - query_length, 0)
        return cls(
            batch=batch,
            query_heads=query_heads,
            kv_heads=k_BGKD.shape[1],
            query_length=query_length,
            key_length=key_length,
            head_dim=head_dim,
            value_dim=v_BGKD.shape[3],
            dtype=str(q_BHQD.dtype).removeprefix("torch."),  # pyright: ignore[reportArgumentType]
            scale=head_dim**-0.5 if scale is None else scale,
            pattern=pattern or Full(),
            query_offset=query_offset,
            softcap=softcap,
            has_sinks=has_sinks,
            has_padding=has_padding,
            has_distance_bias=has_distance_bias,
        )

    def check(
        self,
        q_BHQD: Tensor,
        k_BGKD: Tensor,
        v_BGKD: Tensor,
        *,
        sinks_H: Tensor | None,
        visible_keys_BK: Tensor | None,
        distance_bias_HR: Tensor | None = None,
    ) -> None:
        """Raises InvalidCall unless these tensors are the ones this call describes."""
        _check_tensors(q_BHQD, k_BGKD, v_BGKD)
        queries = (self.batch, self.query_heads, self.query_length, self.head_dim)
        values = (self.batch, self.kv_heads, self.key_length, self.value_dim)
        _check_shape("q", q_BHQD, queries)
        _check_shape("v", v_BGKD, values)
        if q_BHQD.dtype != self.torch_dtype:
            raise InvalidCall(f"the call is in {self.dtype}, q is in {q_BHQD.dtype}.")
        if (sinks_H is not None) != self.has_sinks:
            raise InvalidCall(f"has_sinks is {self.has_sinks}, but sinks_H says otherwise.")
        if (visible_keys_BK is not None) != self.has_padding:
            raise InvalidCall(
                f"has_padding is {self.has_padding}, but visible_keys_BK says otherwise."
            )
        if (distance_bias_HR is not None) != self.has_distance_bias:
            raise InvalidCall(
                f"has_distance_bias is {self.has_distance_bias}, but distance_bias_HR says otherwise."
            )
        if sinks_H is not None:
            _check_shape("sinks", sinks_H, (self.query_heads,))
        if visible_keys_BK is not None:
            _check_shape("visible_keys", visible_keys_BK, (self.batch, self.key_length))
        if distance_bias_HR is not None:
            distances = distance_bias.columns(self.query_length, self.key_length)
            _check_shape("distance_bias", distance_bias_HR, (self.query_heads, distances))
            if distance_bias_HR.dtype != torch.float32:
                raise InvalidCall(f"distance_bias must be float32, got {distance_bias_HR.dtype}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionOutput:
    """What a backend answers to a call.

    Attributes:
        out_BHQD: `[B, H, Q, value_dim]` in the call's dtype; 0 in a row that sees nothing.
        lse_BHQ: `[B, H, Q]`, float32 (float64 for float64 calls): natural logarithm of the
            softmax's denominator, the sink's term included; −inf in a row that sees nothing and
            has no sink. None where the backend does not give it.
    """

    out_BHQD: Tensor
    lse_BHQ: Tensor | None


def _check_shape(name: str, tensor: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != expected:
        raise InvalidCall(f"{name} must have shape {expected}, got {tuple(tensor.shape)}.")


def _check_tensors(q_BHQD: Tensor, k_BGKD: Tensor, v_BGKD: Tensor) -> None:
    shapes = f"q {tuple(q_BHQD.shape)}, k {tuple(k_BGKD.shape)}, v {tuple(v_BGKD.shape)}"
    if not q_BHQD.ndim == k_BGKD.ndim == v_BGKD.ndim == 4:
        raise InvalidCall(
            f"q, k and v must have 4 dimensions [batch, heads, positions, dim], got {shapes}."
        )
    if not q_BHQD.shape[0] == k_BGKD.shape[0] == v_BGKD.shape[0]:
        raise InvalidCall(f"q, k and v must have the same batch, got {shapes}.")
    if k_BGKD.shape[1:3] != v_BGKD.shape[1:3] or q_BHQD.shape[3] != k_BGKD.shape[3]:
        raise InvalidCall(
            f"k must match v in heads and positions, and q in head_dim, got {shapes}."
        )
    if not q_BHQD.dtype == k_BGKD.dtype == v_BGKD.dtype:
        dtypes = f"{q_BHQD.dtype}, {k_BGKD.dtype}, {v_BGKD.dtype}"
        raise InvalidCall(f"q, k and v must share one dtype, got {dtypes}.")
