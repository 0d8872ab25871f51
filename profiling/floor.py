"""The least memory a cell can take, without a tensor: what no run of it can do without.

A lower bound and no prediction: weights, and one layer's attention as its backend counts it. It tells a
score matrix that cannot fit before it is tried; what lies above it, only a real estimate tells.
"""

from typing import Any

from attnscope.kernels import registry
from attnscope.kernels.backends.backend import io_bytes
from attnscope.kernels.call import AttentionCall
from attnscope.kernels.patterns.causal import Causal
from attnscope.kernels.patterns.full import Full
from attnscope.models.loading import LoadedModel
from attnscope.profiling.record import Cell


def floor_bytes(model: LoadedModel, cell: Cell) -> int | None:
    """The least bytes at the peak of a cell; None where the config does not say its heads.

    Args:
        model: The model; its weights count in full.
        cell: What would be run on it.
    """
    call = _call(model.model.config.get_text_config(), cell, is_causal=model.kind == "decoder")
    if call is None:
        return None
    workspace = registry.backend(cell.backend).cost(call).workspace_bytes
    return model.nbytes + workspace + sum(io_bytes(call))


def _call(config: Any, cell: Cell, *, is_causal: bool) -> AttentionCall | None:
    """One layer's attention call; windows only make it smaller where scores are not held."""
    heads = getattr(config, "num_attention_heads", None)
    hidden = getattr(config, "hidden_size", None)
    if not heads or not hidden:
        return None
    width = getattr(config, "head_dim", None) or hidden // heads
    decodes = cell.phase == "decode"
    return AttentionCall(
        batch=cell.batch,
        query_heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        query_length=1 if decodes else cell.length,
        key_length=cell.length + decodes,
        head_dim=width,
        value_dim=width,
        dtype=cell.dtype,  # pyright: ignore[reportArgumentType]
        scale=width**-0.5,
        pattern=Causal() if is_causal else Full(),
        query_offset=cell.length if decodes else 0,
    )
