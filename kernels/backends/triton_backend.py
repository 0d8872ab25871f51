"""Our flash attention kernels in Triton, as a backend. Triton itself is imported when it runs."""

import torch
from torch import Tensor

from attnscope.kernels.backends.backend import (
    Backend,
    Cost,
    Refusal,
    attention_flops,
    distance_bias_bytes,
    io_bytes,
    lse_bytes,
)
from attnscope.kernels.backends.triton_refusals import refuses_triton
from attnscope.kernels.call import AttentionCall, AttentionOutput
from attnscope.kernels.triton.flash_rule import flash_rule, packs_documents


class Triton(Backend):
    """Ours on a GPU: bands of keys visited and no others, keys never repeated, log-sum-exp given."""

    name = "triton"
    title = "Triton flash"
    source = "https://arxiv.org/abs/2307.08691"

    def refuses(self, call: AttentionCall, device: torch.device) -> Refusal | None:
        """See `Backend.refuses`."""
        refusal = refuses_triton(call, device)
        if refusal is not None:
            return refusal
        if flash_rule(call) is None:
            return Refusal(
                reason=f"the kernel visits a band of keys, and {call.pattern.title} is none",
                remedy="Use flex or tiled.",
            )
        if device.type == "cpu" and call.dtype == "bfloat16":
            return Refusal(
                reason="Triton's interpreter multiplies the bits of bfloat16, not its numbers",
                remedy="Use float32 or float16 in the interpreter, or tiled.",
            )
        if call.scale <= 0:
            return Refusal(
                reason=f"the kernel's scale is above 0, and the call's is {call.scale:g}",
                remedy="Use tiled.",
            )
        return None

    def cost(self, call: AttentionCall) -> Cost:
        """See `Backend.cost`."""
        read, written = io_bytes(call)
        bounds = 17 * call.batch * call.key_length if call.has_padding else 0
        if packs_documents(call):
            bounds += 8 * max(call.key_length, call.query_offset + call.query_length)
        return Cost(
            flops=attention_flops(call, call.kept_pairs),
            bytes_read=read + distance_bias_bytes(call),
            bytes_written=written + lse_bytes(call),
            workspace_bytes=lse_bytes(call) + bounds,
            formula=(
                "FLOP 2·B·H·pairs·(D + D_v), pairs the visible ones; reads q, k, v and a bias by "
                "distance once at best; "
                "holds B·H·n_q·4 of log-sum-exp; with padding, positions of B·n_k keys twice; with "
                "documents, 8 bytes a position"
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
        # Here and not above, so that everything else works where Triton is not installed.
        from attnscope.kernels.triton.flash import flash

        return flash(
            q_BHQD,
            k_BGKD,
            v_BGKD,
            call,
            sinks_H=sinks_H,
            visible_keys_BK=visible_keys_BK,
            distance_bias_HR=distance_bias_HR,
        )
