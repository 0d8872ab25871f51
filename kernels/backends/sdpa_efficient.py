"""PyTorch's memory-efficient attention kernel.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim.
"""

import torch
from torch import Tensor

from attnscope.kernels.backends.backend import (
    Refusal,
)
from attnscope.kernels.backends.sdpa import Sdpa, refuses_dtype, refuses_multiple
from attnscope.kernels.call import AttentionCall

_MASK_ALIGNMENT = 16


class SdpaEfficient(Sdpa):
    """PyTorch's memory-efficient attention (the kernel of xFormers, arXiv 2112.05682)."""

    name = "sdpa_efficient"
    title = "SDPA memory-efficient"
    devices = ("cuda",)
    mask_devices = devices

    def _refuses_shape(self, call: AttentionCall, device: torch.device) -> Refusal | None:
        del device
        if call.dtype == "float64":
            return refuses_dtype(call, "float32, float16 and bfloat16")
        if call.group_size > 1:
            return Refusal(
                reason=f"the kernel needs a key head for each query head, and {call.query_heads} "
                f"query heads share {call.kv_heads}",
                remedy="Use sdpa_flash, flex or tiled, which never repeat k and v.",
            )
        multiple = 4 if call.dtype == "float32" else 8
        return refuses_multiple(call, multiple)

    def _kernel(
        self,
        q_BHQD: Tensor,
        k_BGKD: Tensor,
        v_BGKD: Tensor,
        mask_BHQK: Tensor | None,
        causal: bool,
        call: AttentionCall,
    ) -> tuple[Tensor, Tensor | None]:
        if mask_BHQK is not None:
            mask_BHQK = _aligned(mask_BHQK).expand(
                call.batch, call.query_heads, call.query_length, call.key_length
            )
        out_BHQD, lse_BHQ = torch.ops.aten._scaled_dot_product_efficient_attention(
            q_BHQD, k_BGKD, v_BGKD, mask_BHQK, True, 0.0, causal, scale=call.scale
        )[:2]
        # The kernel rounds the number of queries up to a multiple of 32.
        return out_BHQD, lse_BHQ[..., : call.query_length]


def _aligned(mask_BHQK: Tensor) -> Tensor:
    """The same mask with rows that start where the memory-efficient kernel needs them to."""
    keys = mask_BHQK.shape[-1]
    padding = -keys % _MASK_ALIGNMENT
    return torch.nn.functional.pad(mask_BHQK, (0, padding))[..., :keys]
