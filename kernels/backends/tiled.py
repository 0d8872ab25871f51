"""Flash attention by tiles in plain PyTorch, as a backend."""

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
from attnscope.kernels.call import AttentionCall, AttentionOutput
from attnscope.kernels.tiled import default_block, key_tiles, tiled


class Tiled(Backend):
    """Ours: every call on every device, no n×n matrix, no repeated keys, log-sum-exp included."""

    name = "tiled"
    title = "Tiled (plain PyTorch)"
    source = "https://arxiv.org/abs/2112.05682"

    def refuses(self, call: AttentionCall, device: torch.device) -> Refusal | None:
        """See `Backend.refuses`."""
        if device.type == "mps" and call.dtype == "float64":
            return Refusal(reason="Apple GPUs have no float64", remedy="Use float32.")
        return None

    def cost(self, call: AttentionCall) -> Cost:
        """See `Backend.cost`; the workspace is that of a CPU's tile."""
        block = default_block(call, torch.device("cpu"))
        queries = min(block.queries, call.query_length)
        # The last whole block: under a causal rule none sees more keys.
        start = call.query_offset + (call.query_length // queries - 1) * queries
        block_queries = range(start, start + queries)
        tiles = list(key_tiles(call.pattern, block_queries, call.key_length, block.keys))
        keys = max((len(tile) for tile, _ in tiles), default=1)
        divided = max((len(part) for _, parts in tiles for part in parts), default=0)
        rows = call.group_size * queries
        together = max(block.scores // (rows * min(block.keys, call.key_length)), 1)
        heads = min(together, call.batch * call.kv_heads)
        # q, gathered and scaled; the output and what a tile adds to it.
        vectors = rows * (2 * call.head_dim + 2 * call.value_dim)
        wide = 8 if call.dtype == "float64" else 4
        narrow = call.torch_dtype.itemsize < 4
        cast = keys * (call.head_dim + call.value_dim) if narrow else 0
        mask = queries * divided * (wide + 2)
        # The bias of a tile, one for all sequences, and which column each pair is given.
        bias = min(heads, call.kv_heads) * rows * keys * 4 + queries * keys * 8
        read, written = io_bytes(call)
        return Cost(
            flops=attention_flops(call, call.kept_pairs),
            bytes_read=read + distance_bias_bytes(call),
            bytes_written=written + lse_bytes(call),
            workspace_bytes=heads * (rows * keys + vectors + cast) * wide
            + max(mask, bias if call.has_distance_bias else 0)
            + lse_bytes(call),
            formula=(
                "FLOP 2·B·H·pairs·(D + D_v), pairs the visible ones; reads q, k, v once at best "
                "(k and v once per block of queries at worst); holds one tile of scores in "
                "float32, its rows of q and output, its mask or its bias by distance, and B·H·n_q·4 "
                "of log-sum-exp"
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
        return tiled(
            q_BHQD,
            k_BGKD,
            v_BGKD,
            call,
            sinks_H=sinks_H,
            visible_keys_BK=visible_keys_BK,
            distance_bias_HR=distance_bias_HR,
        )
