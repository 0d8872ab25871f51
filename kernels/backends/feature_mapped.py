"""What the backends share whose weights are φ(q)·φ(k): what they refuse and cost, and how they run.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim, F features.
"""

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from attnscope.kernels.approximate.feature_maps import LogFeatures
from attnscope.kernels.approximate.linear import CHUNK, linear_attention
from attnscope.kernels.backends.approximation_refusals import refuses_approximation
from attnscope.kernels.backends.backend import (
    Backend,
    Cost,
    Refusal,
    io_bytes,
    is_causal,
    sees_every_key,
)
from attnscope.kernels.backends.triton_refusals import refuses_triton
from attnscope.kernels.call import AttentionCall, AttentionOutput
from attnscope.kernels.triton.linear_plan import fits


class FeatureMapped(Backend):
    """Sums of φ(k) v over the keys, which a query multiplies: linear in the length.

    One function in two implementations: our Triton kernels where they run (a GPU; heads up to 256
    wide; up to 256 features in float16 and bfloat16, 128 in float32), plain PyTorch elsewhere.
    """

    exact = False
    gives_lse = False
    _held_on_a_gpu: ClassVar[str] = (
        "the sums up to every 256th key, B·G·(n_k / 256)·F·D_v in float32 and in the dtype"
    )

    @abstractmethod
    def _features(self, head_dim: int) -> int:
        """F."""

    @abstractmethod
    def _log_features(self, call: AttentionCall, like: Tensor) -> LogFeatures:
        """Log φ for this call's scale, for tensors on the device of `like`."""

    @abstractmethod
    def _compiled(
        self,
        q_BHQD: Tensor,
        k_BGKD: Tensor,
        v_BGKD: Tensor,
        call: AttentionCall,
        visible_keys_BK: Tensor | None,
    ) -> Tensor:
        """The answer of our Triton kernels."""

    def refuses(self, call: AttentionCall, device: torch.device) -> Refusal | None:
        """See `Backend.refuses`."""
        if not is_causal(call) and not sees_every_key(call):
            return Refusal(
                reason="it keeps sums of all keys up to a position, out of which a pattern's gaps "
                f"cannot be taken, and this is {call.pattern.title}",
                remedy="Use flex or tiled, or a model whose layers are all full or causal.",
            )
        return refuses_approximation(call, device)

    def cost(self, call: AttentionCall) -> Cost:
        """See `Backend.cost`; the workspace is that of plain PyTorch."""
        features, columns = self._features(call.head_dim), call.value_dim + 1
        wide = 8 if call.dtype == "float64" else 4
        chunk, queries = min(CHUNK, call.key_length), min(CHUNK, call.query_length)
        rows = call.group_size * queries
        pairs = call.query_length * chunk if is_causal(call) else 0
        sums = call.kv_heads * call.key_length + call.query_heads * call.query_length
        # At the worst moment, queries' features are made, or queries are weighed against a chunk.
        weighing = features + chunk + max(chunk, 3 * columns) if pairs else 3 * features + columns
        cast = call.head_dim if call.torch_dtype.itemsize < 4 and not pairs else 0
        answer = rows * (max(3 * features, weighing) + cast)
        kept = chunk * (features + columns) + features * columns
        working = kept + max(answer, 2 * chunk * features)
        joining = kept + rows * columns
        heads = call.batch * call.kv_heads * wide
        # Of the output, as long as there is work to do.
        unmade = call.batch * call.kv_heads * rows * call.value_dim * call.torch_dtype.itemsize
        read, written = io_bytes(call)
        return Cost(
            flops=2 * call.batch * sums * features * columns
            + 2 * call.batch * call.query_heads * pairs * (features + columns)
            + self._feature_flops(call),
            bytes_read=read,
            bytes_written=written,
            workspace_bytes=max(heads * working - unmade, heads * joining + written),
            formula=(
                f"F = {features} features; FLOP 2·B·(G·n_k + H·n_q)·F·(D_v + 1), causal also "
                f"2·B·H·n_q·{CHUNK}·(F + D_v + 1) within chunks of {CHUNK} keys; holds one sum "
                "B·G·F·(D_v + 1) and a chunk's features and weights in float32, or at the end the "
                f"output's pieces; on a GPU instead {self._held_on_a_gpu}"
            ),
        )

    def _feature_flops(self, call: AttentionCall) -> int:
        """FLOP of the features themselves; elementwise work is left out."""
        del call
        return 0

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
        del sinks_H, distance_bias_HR
        if self._is_compiled(call, q_BHQD.device):
            out_BHQD = self._compiled(q_BHQD, k_BGKD, v_BGKD, call, visible_keys_BK)
        else:
            out_BHQD = linear_attention(
                q_BHQD,
                k_BGKD,
                v_BGKD,
                self._log_features(call, q_BHQD),
                causal=is_causal(call),
                query_offset=call.query_offset,
                visible_keys_BK=visible_keys_BK,
            )
        return AttentionOutput(out_BHQD=out_BHQD, lse_BHQ=None)

    def _is_compiled(self, call: AttentionCall, device: torch.device) -> bool:
        taken = fits(self._features(call.head_dim), call.torch_dtype)
        return taken and refuses_triton(call, device) is None
