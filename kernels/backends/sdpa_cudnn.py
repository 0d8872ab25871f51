"""PyTorch's route to cuDNN's attention.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim.
"""

import torch
from torch import Tensor

from attnscope.kernels.backends.backend import (
    Refusal,
)
from attnscope.kernels.backends.sdpa import Sdpa, refuses_half_precision
from attnscope.kernels.call import AttentionCall


class SdpaCudnn(Sdpa):
    """PyTorch's route to cuDNN's fused attention."""

    name = "sdpa_cudnn"
    title = "SDPA cuDNN"
    devices = ("cuda",)
    mask_devices = ()

    def _refuses_shape(self, call: AttentionCall, device: torch.device) -> Refusal | None:
        return refuses_half_precision(call, device, widest=128)

    def causal_flag(self, call: AttentionCall, device: torch.device) -> bool:
        """See `Sdpa.causal_flag`; only where both corners align."""
        square = call.query_length == call.key_length
        return square and super().causal_flag(call, device)

    def _kernel(
        self,
        q_BHQD: Tensor,
        k_BGKD: Tensor,
        v_BGKD: Tensor,
        mask_BHQK: Tensor | None,
        causal: bool,
        call: AttentionCall,
    ) -> tuple[Tensor, Tensor | None]:
        out_BHQD, lse_BHQ = torch.ops.aten._scaled_dot_product_cudnn_attention(
            q_BHQD, k_BGKD, v_BGKD, mask_BHQK, True, 0.0, causal, False, scale=call.scale
        )[:2]
        return out_BHQD, lse_BHQ.reshape(out_BHQD.shape[:3])
