"""What attention itself holds: while it runs, and until its backward pass, by backend.

B batch, H query heads, G key/value heads, n_q queries, n_k keys, d head width, s bytes of the dtype.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import torch

from attnscope.kernels.backends.backend import io_bytes, lse_bytes, sees_every_key
from attnscope.kernels.call import AttentionCall
from attnscope.kernels.errors import InvalidCall, UnsupportedCall
from attnscope.kernels.patterns.full import Full
from attnscope.kernels.registry import BACKENDS, backend
from attnscope.models.shape import LayerShape

TRANSFORMERS = ("transformers_eager", "transformers_sdpa")
"""The library's own attention, without us: `attn_implementation` eager and sdpa."""

CONTENDERS = (*(one.name for one in BACKENDS), *TRANSFORMERS)
"""Every way of computing attention that can be estimated."""

_NO_OUTPUT_YET = {"eager", "transformers_eager"}
"""Their worst moment is the softmax, before there is an output."""

_MODELING = "transformers, integrations/{}_attention.py and the modeling files"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """What one attention call holds besides q, k and v.

    Attributes:
        nbytes: At its worst moment, the output included where it is there.
        formula: In symbols.
        source: Of the formula.
    """

    nbytes: int
    formula: str
    source: str


def call_of(layer: LayerShape, *, batch: int, length: int, dtype: str, decode: bool) -> AttentionCall:
    """The attention call of one layer in a prompt, or in a step with a full cache.

    Args:
        layer: Any but a linear one.
        batch: B.
        length: n; of the cache with the new token in a step.
        dtype: The compute dtype.
        decode: Whether this is a step, of one query.
    """
    keys = positions(layer, length) if decode else length
    # A step's query sees the whole of what a windowed cache holds.
    pattern = Full() if decode else layer.pattern
    return AttentionCall(
        batch=batch,
        query_heads=layer.query_heads,
        kv_heads=layer.kv_heads,
        query_length=1 if decode else length,
        key_length=keys,
        head_dim=layer.head_dim,
        value_dim=layer.value_dim,
        dtype=dtype,  # pyright: ignore[reportArgumentType]
        scale=layer.scale,
        pattern=pattern,
        query_offset=keys - 1 if decode else 0,
        softcap=layer.softcap,
        has_sinks=layer.has_sinks,
    )


def positions(layer: LayerShape, length: int) -> int:
    """Keys that the layer's cache lends to one query."""
    return length if layer.window is None else min(length, layer.window)


@lru_cache(maxsize=4096)
def attention(name: str, call: AttentionCall) -> Attention:
    """What a backend holds while it runs one call.

    Args:
        name: One of `CONTENDERS`.
        call: The call.

    Raises:
        UnknownBackend: No such name.
    """
    _, output = io_bytes(call)
    if name in TRANSFORMERS:
        return _transformers(name, call, output)
    found = backend(name)
    nbytes = found.workspace_bytes(call) + (0 if name in _NO_OUTPUT_YET else output)
    if name == "eager" and not sees_every_key(call):
        nbytes += call.query_length * call.key_length
    return Attention(nbytes=nbytes, formula=_held(name), source=found.source)


def standing_masks(name: str, calls: Sequence[AttentionCall]) -> int:
    """Bytes of the masks that transformers makes before the first layer and keeps to the last.

    Args:
        name: One of `CONTENDERS`; our own backends are given rules, not masks.
        calls: One a layer. Layers of one pattern share a mask.
    """
    if name not in TRANSFORMERS:
        return 0
    distinct = {(call.pattern, call.query_length, call.key_length): call for call in calls}.values()
    if name == "transformers_sdpa":
        return sum(
            call.batch * call.query_length * call.key_length for call in distinct if _bites(call)
        )
    return sum(
        call.batch * call.query_length * call.key_length * call.torch_dtype.itemsize
        for call in distinct
        if not isinstance(call.pattern, Full)
    )


def _bites(call: AttentionCall) -> bool:
    """Whether a window hides something: without one, SDPA's flag says it all."""
    window = getattr(call.pattern, "window", None)
    return isinstance(window, int) and window < call.key_length


def saved(name: str, call: AttentionCall) -> int:
    """Bytes that one call keeps until its backward pass, besides q, k, v and the output.

    Raises:
        UnsupportedCall: The backend has no backward pass.
    """
    size = call.torch_dtype.itemsize
    scores = call.batch * call.query_heads * call.query_length * call.key_length
    if name in ("transformers_eager", "sdpa_math"):
        # The softmax's own output, in float32, and what multiplies v, in the compute dtype.
        narrow = size if size < 4 else 0
        repeated = 0
        if call.group_size > 1:
            keys = call.batch * call.query_heads * call.key_length
            repeated = keys * (call.head_dim + call.value_dim) * size
        return scores * (4 + narrow) + repeated
    if name in ("eager", "tiled", "triton_decode", "triton_block_sparse"):
        raise UnsupportedCall(
            f"{name} has no backward pass.",
            "Train with triton, sdpa_flash, flex, transformers_eager or transformers_sdpa.",
        )
    return lse_bytes(call)


def check_dtype(dtype: str) -> int:
    """Bytes of a compute dtype.

    Raises:
        InvalidCall: No such dtype, or not one that models are run in.
    """
    if dtype not in ("float32", "bfloat16", "float16"):
        raise InvalidCall(f"No dtype {dtype!r}.", "Use float32, bfloat16 or float16.")
    return getattr(torch, dtype).itemsize


def _transformers(name: str, call: AttentionCall, output: int) -> Attention:
    size = call.torch_dtype.itemsize
    pairs = call.query_length * call.key_length
    if name == "transformers_sdpa":
        # The kernel takes numbers: the mask of booleans becomes one of the dtype.
        added = call.batch * pairs * size if _bites(call) else 0
        return Attention(
            nbytes=output + lse_bytes(call) + added,
            formula="B·H·n_q·d·s + B·H·n_q·4, and B·n_q·n_k·s where a window bites",
            source=_MODELING.format("sdpa"),
        )
    scores = call.batch * call.query_heads * pairs
    repeated = 0
    if call.group_size > 1:
        keys = call.batch * call.query_heads * call.key_length
        repeated = keys * (call.head_dim + call.value_dim) * size
    return Attention(
        nbytes=scores * (2 * size if size == 4 else size + 8) + repeated,
        formula=(
            "B·H·n_q·n_k·(s + 4 + 4) in 16 bits, ·2s otherwise, and k and v once for each query "
            "head where heads share them"
        ),
        source=_MODELING.format("eager"),
    )


@cache
def _held(name: str) -> str:
    """The part of a backend's formula that tells what it holds, which is the same for every call."""
    call = AttentionCall(
        batch=1,
        query_heads=1,
        kv_heads=1,
        query_length=1,
        key_length=1,
        head_dim=16,
        value_dim=16,
        dtype="float32",
        scale=1.0,
    )
    told = backend(name).cost(call).formula.replace("\n", " ").split(";")
    holds = next((part for part in told if "holds" in part), told[-1])
    return holds.strip().removeprefix("holds ")
