"""PyTorch's flash attention kernels.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim.
"""

import torch
from torch import Tensor

from attnscope.kernels.backends.backend import (
    Refusal,
    is_causal,
)
from attnscope.kernels.backends.sdpa import Sdpa, refuses_half_precision
from attnscope.kernels.call import AttentionCall

_CPU_TILES = ((256, 768), (64, 192), (32, 0))


class SdpaFlash(Sdpa):
    """PyTorch's flash attention: FlashAttention-2 on CUDA, a kernel of its own on the CPU."""

    name = "sdpa_flash"
    title = "SDPA flash"
    devices = ("cpu", "cuda")
    mask_devices = ("cpu",)
    flag_joins_mask = True

    def _refuses_shape(self, call: AttentionCall, device: torch.device) -> Refusal | None:
        if call.value_dim != call.head_dim:
            return Refusal(
                reason=f"the kernel needs values as wide as keys, and they are {call.value_dim} "
                f"and {call.head_dim} wide",
                remedy="Use sdpa_math, flex or tiled.",
            )
        return None if device.type == "cpu" else refuses_half_precision(call, device, widest=256)

    def _tile_bytes(self, call: AttentionCall) -> int:
        # The CPU kernel's own choice: more queries at a time the more there are, 512 keys.
        queries = next(tile for tile, least in _CPU_TILES if call.query_length >= least)
        size = call.torch_dtype.itemsize
        narrow = size if size < 4 else 0
        tile = queries * min(512, call.key_length) * (max(size, 4) + narrow)
        rows = queries * (call.value_dim + 2) * max(size, 4)
        return torch.get_num_threads() * (tile + rows)

    def causal_flag(self, call: AttentionCall, device: torch.device) -> bool:
        """See `Sdpa.causal_flag`; on CUDA the flag aligns the last query with the last key."""
        from_zero = device.type == "cpu"
        offset = 0 if from_zero else call.key_length - call.query_length
        return call.query_offset == offset and is_causal(call)

    def _kernel(
        self,
        q_BHQD: Tensor,
        k_BGKD: Tensor,
        v_BGKD: Tensor,
        mask_BHQK: Tensor | None,
        causal: bool,
        call: AttentionCall,
    ) -> tuple[Tensor, Tensor | None]:
        if q_BHQD.device.type == "cpu":
            return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                q_BHQD, k_BGKD, v_BGKD, 0.0, causal, attn_mask=mask_BHQK, scale=call.scale
            )
        return torch.ops.aten._scaled_dot_product_flash_attention(
            q_BHQD, k_BGKD, v_BGKD, 0.0, causal, False, scale=call.scale
        )[:2]
