"""Our block-sparse Triton kernel, as a backend.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim.
"""

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
from attnscope.kernels.patterns.causal import Causal
from attnscope.kernels.patterns.full import Full
from attnscope.kernels.patterns.sliding_window import SlidingWindow
from attnscope.kernels.triton.block_plan import block_plan, sparse_config


class TritonBlockSparse(Backend):
    """Ours: any pattern, by lists of the blocks that hold a visible pair; the others cost nothing."""

    name = "triton_block_sparse"
    title = "Triton block-sparse"
    source = "https://arxiv.org/abs/2007.14062"

    def refuses(self, call: AttentionCall, device: torch.device) -> Refusal | None:
        """See `Backend.refuses`."""
        refusal = refuses_triton(call, device)
        if refusal is not None:
            return refusal
        if isinstance(call.pattern, (Full, Causal, SlidingWindow)):
            return Refusal(
                reason=f"lists of blocks gain nothing for {call.pattern.title!r}, whose keys are "
                "one run",
                remedy="Use triton or tiled, which need no list.",
            )
        return None

    def cost(self, call: AttentionCall) -> Cost:
        """See `Backend.cost`; the blocks are those of an H100 or H200.

        Raises:
            UnsupportedCall: The pattern has so little structure that its masks would not fit.
        """
        width = max(call.head_dim, call.value_dim)
        config = sparse_config(width, call.torch_dtype, hopper=True)
        plan = block_plan(
            call.pattern,
            query_length=call.query_length,
            key_length=call.key_length,
            query_offset=call.query_offset,
            block_queries=config.block_queries,
            block_keys=config.block_keys,
        )
        pairs = plan.blocks * config.block_queries * config.block_keys
        read, written = io_bytes(call)
        return Cost(
            flops=attention_flops(call, min(pairs, call.query_length * call.key_length)),
            bytes_read=read + distance_bias_bytes(call) + plan.nbytes,
            bytes_written=written + lse_bytes(call),
            workspace_bytes=plan.nbytes + lse_bytes(call),
            formula=(
                f"FLOP 2·B·H·pairs·(D + D_v), pairs those of the {config.block_queries}-by-"
                f"{config.block_keys} blocks that hold a visible one; reads q, k, v and a bias by distance "
                "once at best; "
                "holds 4 bytes a full block, 8 a divided one, 8 a query of each mask that differs, "
                "and B·H·n_q·4 of log-sum-exp"
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
        # Imported here: a machine without Triton still lists the backends.
        from attnscope.kernels.triton.block_sparse import block_sparse

        return block_sparse(
            q_BHQD,
            k_BGKD,
            v_BGKD,
            call,
            sinks_H=sinks_H,
            visible_keys_BK=visible_keys_BK,
            distance_bias_HR=distance_bias_HR,
        )
