"""PyTorch's attention composed of its own matmul and softmax.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim.
"""

import torch
from torch import Tensor

from attnscope.kernels.backends.backend import (
    Cost,
    Refusal,
    attention_flops,
    io_bytes,
    sees_every_key,
)
from attnscope.kernels.backends.sdpa import Sdpa
from attnscope.kernels.call import AttentionCall


class SdpaMath(Sdpa):
    """PyTorch's composition of matmul, softmax, matmul: any shape, n² memory."""

    name = "sdpa_math"
    title = "SDPA math"
    gives_lse = False
    devices = ("cpu", "cuda", "mps")
    mask_devices = devices

    def _refuses_shape(self, call: AttentionCall, device: torch.device) -> Refusal | None:
        del device
        if call.has_sinks:
            return Refusal(
                reason="it gives no log-sum-exp for the sinks to join",
                remedy="Use eager, sdpa_flash or tiled.",
            )
        return None

    def _refuses_mask(self, call: AttentionCall, device: torch.device) -> Refusal | None:
        # It holds every score anyway.
        del call, device

    def cost(self, call: AttentionCall) -> Cost:
        """See `Backend.cost`."""
        size = call.torch_dtype.itemsize
        wide = max(size, 4)
        pairs = call.query_length * call.key_length
        scores = call.batch * call.query_heads * pairs
        keys = call.batch * call.query_heads * call.key_length
        repeated = keys * (call.head_dim + call.value_dim) if call.group_size > 1 else 0
        mask = 0
        if call.has_padding or call.has_distance_bias or not sees_every_key(call):
            # A bias goes in as a mask a head, in the call's own dtype.
            a_pair = call.query_heads * size if call.has_distance_bias else wide
            mask = (call.batch if call.has_padding else 1) * pairs * a_pair
        read, written = io_bytes(call)
        widened = (read * wide) // size if size < 4 else 0
        return Cost(
            flops=attention_flops(call, pairs),
            bytes_read=read + mask + 2 * scores * wide,
            bytes_written=written + 2 * scores * wide,
            workspace_bytes=scores * (2 * wide + 1) + repeated * wide + mask + widened,
            formula=(
                "FLOP 2·B·H·n_q·n_k·(D + D_v), hidden pairs included; holds scores and "
                "probabilities in float32 and which are hidden, B·H·n_q·n_k·(4 + 4 + 1), k and v "
                "once for each query head, a mask of n_q·n_k·4 (causal too; H·n_q·n_k·s with a "
                "bias by distance), and q, k, v in float32 where they are narrower; reads and writes 4·B·H·n_q·n_k·4"
            ),
        )

    def _kernel(
        self,
        q_BHQD: Tensor,
        k_BGKD: Tensor,
        v_BGKD: Tensor,
        mask_BHQK: Tensor | None,
        causal: bool,
        call: AttentionCall,
    ) -> tuple[Tensor, Tensor | None]:
        out_BHQD, _ = torch.ops.aten._scaled_dot_product_attention_math(
            q_BHQD,
            k_BGKD,
            v_BGKD,
            mask_BHQK,
            0.0,
            causal,
            scale=call.scale,
            enable_gqa=call.group_size > 1,
        )
        return out_BHQD, None
