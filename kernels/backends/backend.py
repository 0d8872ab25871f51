"""What every backend is: one way to compute attention, with what it refuses and what it costs.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attnscope.kernels import distance_bias
from attnscope.kernels.call import AttentionCall, AttentionOutput
from attnscope.kernels.errors import UnsupportedCall
from attnscope.kernels.patterns.causal import Causal
from attnscope.kernels.patterns.sliding_window import SlidingWindow


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a backend does not take a call.

    Attributes:
        reason: What it lacks, as the end of "it refuses because ...".
        remedy: What to do instead.
    """

    reason: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one call costs, from its shapes alone.

    Attributes:
        flops: A multiply-add counts as 2; the softmax is left out.
        bytes_read: From device memory, every operand once unless the formula says otherwise.
        bytes_written: To device memory.
        workspace_bytes: Held at the worst moment besides q, k, v and the output.
        formula: The formulas behind the figures, in words and symbols.
    """

    flops: int
    bytes_read: int
    bytes_written: int
    workspace_bytes: int
    formula: str


class Backend(ABC):
    """A way to compute attention. Stateless: one instance serves all calls.

    It runs what it takes and refuses the rest; it never hands a call to another backend.

    Attributes:
        name: As in `backend(name)` and in links.
        title: For people.
        source: Where the algorithm or the kernel is described.
        exact: Whether the result is that of dense attention over the pattern, up to rounding.
        gives_lse: Whether the log-sum-exp comes with the output on every device.
        rounds_scores: Whether scores are rounded to the call's dtype before the softmax; their
            log-sum-exp is then, in 16 bits, not that of the scores that maps compute in float32.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    exact: ClassVar[bool] = True
    gives_lse: ClassVar[bool] = True
    rounds_scores: ClassVar[bool] = False

    @abstractmethod
    def refuses(self, call: AttentionCall, device: torch.device) -> Refusal | None:
        """Why this call cannot run on this device, or None when it can."""

    def refuses_elsewhere(self, call: AttentionCall) -> Refusal | None:
        """Why no CUDA device anywhere runs this call, or None: what is installed here does not count."""
        return self.refuses(call, torch.device("cuda"))

    @abstractmethod
    def cost(self, call: AttentionCall) -> Cost:
        """What the call costs, whether or not it can run here."""

    def workspace_bytes(self, call: AttentionCall) -> int:
        """That of `cost`, for who wants nothing else."""
        return self.cost(call).workspace_bytes

    @abstractmethod
    def _attend(
        self,
        q_BHQD: Tensor,
        k_BGKD: Tensor,
        v_BGKD: Tensor,
        call: AttentionCall,
        *,
        sinks_H: Tensor | None,
        visible_keys_BK: Tensor | None,
        distance_bias_HR: Tensor | None,
    ) -> AttentionOutput:
        """The computation, on a call that was checked."""

    def check(self, call: AttentionCall, device: torch.device) -> None:
        """Raises UnsupportedCall, in the refusal's words, when the call cannot run here."""
        refusal = self.refuses(call, device)
        if refusal is not None:
            raise UnsupportedCall(f"{self.title}: {refusal.reason}.", refusal.remedy)

    def run(
        self,
        q_BHQD: Tensor,
        k_BGKD: Tensor,
        v_BGKD: Tensor,
        call: AttentionCall,
        *,
        sinks_H: Tensor | None = None,
        visible_keys_BK: Tensor | None = None,
        distance_bias_HR: Tensor | None = None,
    ) -> AttentionOutput:
        """Attention over these tensors.

        Args:
            q_BHQD: `[B, H, Q, D]`, any strides.
            k_BGKD: `[B, G, K, D]`, not repeated for the query heads that share it.
            v_BGKD: `[B, G, K, value_dim]`.
            call: What the tensors are and which pairs are visible.
            sinks_H: One logit a head that joins the denominator; given iff `has_sinks`.
            visible_keys_BK: bool, False where a key is padding; given iff `has_padding`.
            distance_bias_HR: float32 `[H, Q + K − 1]`, see `kernels/distance_bias.py`; given iff
                `has_distance_bias`.

        Raises:
            InvalidCall: The tensors are not those of the call.
            UnsupportedCall: This backend refuses the call on the tensors' device.
        """
        modifiers = {
            "sinks_H": sinks_H,
            "visible_keys_BK": visible_keys_BK,
            "distance_bias_HR": distance_bias_HR,
        }
        call.check(q_BHQD, k_BGKD, v_BGKD, **modifiers)
        self.check(call, q_BHQD.device)
        return self._attend(q_BHQD, k_BGKD, v_BGKD, call, **modifiers)


def sees_every_key(call: AttentionCall) -> bool:
    """Whether the pattern hides nothing from any query of the call (one query of a cache, say)."""
    end = call.query_offset + call.query_length
    spans = call.pattern.full_key_spans(call.query_offset, end, call.key_length)
    return spans == ((0, call.key_length),)


def is_causal(call: AttentionCall) -> bool:
    """Whether the pattern is the causal one for this call, as is a window that hides no key."""
    pattern = call.pattern
    end = call.query_offset + call.query_length
    wide = isinstance(pattern, SlidingWindow) and pattern.window >= end
    return isinstance(pattern, Causal) or wide


def io_bytes(call: AttentionCall) -> tuple[int, int]:
    """Bytes of q, k and v together, and of the output."""
    size = call.torch_dtype.itemsize
    queries = call.batch * call.query_heads * call.query_length
    keys = call.batch * call.kv_heads * call.key_length
    read = queries * call.head_dim + keys * (call.head_dim + call.value_dim)
    return read * size, queries * call.value_dim * size


def lse_bytes(call: AttentionCall) -> int:
    """Bytes of the log-sum-exp: one float32 a query of a head."""
    return call.batch * call.query_heads * call.query_length * 4


def distance_bias_bytes(call: AttentionCall) -> int:
    """Bytes of the bias by distance: one float32 a distance of a head."""
    if not call.has_distance_bias:
        return 0
    return call.query_heads * distance_bias.columns(call.query_length, call.key_length) * 4


def laid_out_bias_bytes(call: AttentionCall) -> int:
    """Bytes held while that bias is laid out for every pair: a number a head, and the column it is from."""
    if not call.has_distance_bias:
        return 0
    pairs = call.query_length * call.key_length
    return pairs * (call.query_heads * call.torch_dtype.itemsize + 8)


def attention_flops(call: AttentionCall, pairs: int) -> int:
    """FLOP of q·k and of weights·v over `pairs` (query, key) pairs of a head."""
    return 2 * call.batch * call.query_heads * pairs * (call.head_dim + call.value_dim)


def join_sinks(output: AttentionOutput, sinks_H: Tensor | None) -> AttentionOutput:
    """Adds each head's sink logit to the denominator of an attention that was made without it.

    Exact: a sink makes the denominator larger and has no value of its own, so the output shrinks
    by exp(lse) / (exp(lse) + exp(sink)), which is a sigmoid.

    Raises:
        UnsupportedCall: A gradient is asked for, and the kernel's log-sum-exp passes none on.
    """
    if sinks_H is None or output.lse_BHQ is None:
        return output
    lse_BHQ = output.lse_BHQ
    if output.out_BHQD.requires_grad and not lse_BHQ.requires_grad:
        raise UnsupportedCall(
            "The sinks join by this backend's log-sum-exp, which has no gradient.",
            "Use triton, or torch.no_grad().",
        )
    sinks_H1 = sinks_H.to(lse_BHQ.dtype)[:, None]
    kept_BHQ1 = torch.sigmoid(lse_BHQ - sinks_H1)[..., None]
    return AttentionOutput(
        out_BHQD=(output.out_BHQD * kept_BHQ1).to(output.out_BHQD.dtype),
        lse_BHQ=torch.logaddexp(lse_BHQ, sinks_H1),
    )
