"""Our Triton kernel for decoding, as a backend.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim.
"""

import math

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
from attnscope.kernels.patterns.band import band
from attnscope.kernels.triton.decode_plan import MOST_QUERIES, decode_config, splits

_MULTIPROCESSORS = 132
"""Of an H100 or H200: the cost is stated for them."""


class TritonDecode(Backend):
    """Ours: a few queries against a cache, split over its keys so that the whole GPU reads it."""

    name = "triton_decode"
    title = "Triton decode (split keys)"
    source = "https://arxiv.org/abs/2311.01282"

    def refuses(self, call: AttentionCall, device: torch.device) -> Refusal | None:
        """See `Backend.refuses`."""
        refusal = refuses_triton(call, device)
        if refusal is not None:
            return refusal
        if call.query_length > MOST_QUERIES:
            return Refusal(
                reason=f"it decodes up to {MOST_QUERIES} queries, and the call has "
                f"{call.query_length}",
                remedy="Use triton or tiled, which are made for many queries.",
            )
        if band(call.pattern) is None:
            return Refusal(
                reason=f"it takes full, causal and window patterns, and this is "
                f"{call.pattern.title!r}",
                remedy="Use triton_block_sparse or tiled, which take every pattern.",
            )
        return None

    def cost(self, call: AttentionCall) -> Cost:
        """See `Backend.cost`; the splits are those of an H100's or H200's multiprocessors."""
        seen = band(call.pattern)
        every_key = range(call.key_length)
        keys = (
            every_key
            if seen is None
            else seen.keys(call.query_offset, call.query_length, call.key_length)
        )
        rows = call.group_size * call.query_length
        config = decode_config(rows, call.head_dim, call.value_dim, call.torch_dtype, paged=False)
        programs = call.batch * call.kv_heads * math.ceil(rows / config.rows)
        parts = splits(programs, math.ceil(len(keys) / config.block_keys), _MULTIPROCESSORS)
        partial = parts * call.batch * call.query_heads * call.query_length * (call.value_dim + 2)
        read, written = io_bytes(call)
        unread = call.batch * call.kv_heads * (call.key_length - len(keys))
        unread *= (call.head_dim + call.value_dim) * call.torch_dtype.itemsize
        return Cost(
            flops=attention_flops(call, call.kept_pairs),
            bytes_read=read - unread + distance_bias_bytes(call) + 4 * partial,
            bytes_written=written + lse_bytes(call) + 4 * partial,
            workspace_bytes=4 * partial + lse_bytes(call),
            formula=(
                "FLOP 2·B·H·pairs·(D + D_v), pairs the visible ones; reads q and a bias by "
                "distance once, and k, v once where some query sees them; writes, reads and holds "
                "each split's output, total and highest "
                f"score, splits·B·H·n_q·(D_v + 2)·4, splits for {_MULTIPROCESSORS} "
                "multiprocessors, and B·H·n_q·4 of log-sum-exp"
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
        from attnscope.kernels.triton.decode import decode

        return decode(
            q_BHQD,
            k_BGKD,
            v_BGKD,
            call,
            sinks_H=sinks_H,
            visible_keys_BK=visible_keys_BK,
            distance_bias_HR=distance_bias_HR,
        )
