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
from attnscope.kernels.tiled import tiled
from attnscope.kernels.tiling import default_block, fullest, key_tiles


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
        region = fullest(call, block)
        start, stop = region.queries.start, region.queries.stop
        queries = (stop - start) // region.blocks
        block_queries = range(call.query_offset + start, call.query_offset + start + queries)
        tiles = list(key_tiles(call.pattern, block_queries, call.key_length, block.keys))
        keys = max((len(tile) for tile, _ in tiles), default=1)
        divided = max((sum(map(len, parts)) for _, parts in tiles), default=0)
        rows = call.group_size * queries
        heads = region.sequences.stop * region.kv_heads.stop
        # q, gathered and scaled; the output and what a tile adds to it.
        vectors = rows * (2 * call.head_dim + 2 * call.value_dim)
        wide = 8 if call.dtype == "float64" else 4
        cast = 0
        if call.torch_dtype.itemsize < 4:
            # Blocks that are worked on together share most of their keys; they hold them and the values.
            cast = keys * max(call.head_dim, call.value_dim)
            if region.blocks > 1:
                cast = (keys + stop - start - queries) * (call.head_dim + call.value_dim)
        beside = heads * cast * wide
        if call.has_distance_bias:
            # The bias of a tile, one for all sequences and blocks, and which column each pair is given.
            beside = max(beside, region.kv_heads.stop * rows * keys * 4 + queries * keys * 8)
        read, written = io_bytes(call)
        return Cost(
            flops=attention_flops(call, call.kept_pairs),
            bytes_read=read + distance_bias_bytes(call),
            bytes_written=written + lse_bytes(call),
            workspace_bytes=heads * region.blocks * (rows * keys + vectors) * wide
            + beside
            + queries * divided * (4 + 2)
            + lse_bytes(call),
            formula=(
                "FLOP 2·B·H·pairs·(D + D_v), pairs the visible ones; reads q, k, v once at best "
                "(k and v once per block of queries at worst); holds the scores of the tiles that are "
                "worked on together in float32, their rows of q and output, their mask, their "
                "bias by distance, and B·H·n_q·4 of log-sum-exp"
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
