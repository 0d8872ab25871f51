"""Linformer, as a backend.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim.
"""

import torch
from torch import Tensor

from attnscope.kernels.approximate.linformer import length_projection, linformer
from attnscope.kernels.backends.approximation_refusals import refuses_approximation
from attnscope.kernels.backends.backend import (
    Backend,
    Cost,
    Refusal,
    attention_flops,
    io_bytes,
)
from attnscope.kernels.call import AttentionCall, AttentionOutput
from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.patterns.full import Full


class Linformer(Backend):
    """Softmax attention to `rank` random mixtures of the keys, whatever their number.

    The projection is the random one of the paper's theorems, the same for every head and layer; its
    models learn theirs. So a model that was not trained with it is not good with it.

    Args:
        rank: Rows that keys and values are projected to.
        seed: Of the projection.

    Raises:
        InvalidCall: A rank under 1.
    """

    name = "linformer"
    title = "Linformer (random projection of the length)"
    source = "https://arxiv.org/abs/2006.04768"
    exact = False
    gives_lse = False

    def __init__(self, *, rank: int = 256, seed: int = 0) -> None:
        if rank < 1:
            raise InvalidCall(f"rank must be at least 1, got {rank}.")
        self.rank = rank
        self.seed = seed

    def refuses(self, call: AttentionCall, device: torch.device) -> Refusal | None:
        """See `Backend.refuses`."""
        if not isinstance(call.pattern, Full):
            return Refusal(
                reason="each row it projects the keys to mixes those of all positions, so a query "
                "would see past what its pattern shows (the future in a causal model, with a "
                f"cache or without), and this is {call.pattern.title}",
                remedy="Use linear or performer for causal models; linformer is for encoders.",
            )
        return refuses_approximation(call, device)

    def cost(self, call: AttentionCall) -> Cost:
        """See `Backend.cost`; the workspace is that of PyTorch's attention by the math kernel."""
        widths = call.head_dim + call.value_dim
        keys = call.batch * call.kv_heads * call.key_length
        projected = call.batch * call.kv_heads * self.rank * widths
        size = call.torch_dtype.itemsize
        wide = max(size, 4)
        read, written = io_bytes(call)
        return Cost(
            flops=2 * keys * self.rank * widths
            + attention_flops(call, call.query_length * self.rank),
            bytes_read=read + projected * size + call.key_length * self.rank * wide,
            bytes_written=written + projected * size,
            workspace_bytes=projected * size + call.key_length * self.rank * wide,
            formula=(
                f"FLOP 2·B·G·n_k·r·(D + D_v) to project and 2·B·H·n_q·r·(D + D_v) to attend, "
                f"r = {self.rank}; holds the projection n_k·r and the projected keys and values "
                f"B·G·r·(D + D_v)"
            ),
        )

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
        projection_KR = length_projection(call.key_length, self.rank, self.seed)
        out_BHQD = linformer(
            q_BHQD,
            k_BGKD,
            v_BGKD,
            projection_KR,
            scale=call.scale,
            visible_keys_BK=visible_keys_BK,
        )
        return AttentionOutput(out_BHQD=out_BHQD, lse_BHQ=None)
