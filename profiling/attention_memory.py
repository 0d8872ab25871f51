"""What attention itself holds: while it runs, and until its backward pass, by backend.

B batch, H query heads, G key/value heads, n_q queries, n_k keys, d head width, s bytes of the dtype.
"""

from dataclasses import dataclass
from functools import cache, lru_cache

import torch

from attnscope.kernels.backends.backend import (
    Backend,
    Cost,
    distance_bias_bytes,
    io_bytes,
    lse_bytes,
    sees_every_key,
)
from attnscope.kernels.backends.sdpa import Sdpa
from attnscope.kernels.call import AttentionCall
from attnscope.kernels.errors import InvalidCall, UnsupportedCall
from attnscope.kernels.patterns.full import Full
from attnscope.kernels.registry import BACKENDS, backend
from attnscope.models.shape import LayerShape

OWN = "transformers_eager"
"""The model's own attention, without us: `attn_implementation` eager. Any model has it."""

SDPA = "transformers_sdpa"
"""PyTorch's, as transformers calls it without us: `attn_implementation` sdpa."""

CONTENDERS = (*(one.name for one in BACKENDS), OWN, SDPA)
"""Every way of computing attention that can be estimated."""

COMPARED = (*(one.name for one in BACKENDS if one.exact), OWN, SDPA)
"""Of them, those that compute a model's own attention, and not an approximation of it."""

_MODELS_LAYOUT = {"sdpa_flash", "fa2", "fa3", "fa4", SDPA}
"""Their output needs no copy."""

_INTEGRATION = "transformers, integrations/sdpa_attention.py"

_NO_BACKWARD = {"eager", "tiled", "triton_decode", "triton_block_sparse"}


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


def call_of(
    layer: LayerShape, *, batch: int, length: int, dtype: str, decode: bool
) -> AttentionCall:
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
        has_distance_bias=layer.has_distance_bias,
    )


def positions(layer: LayerShape, length: int) -> int:
    """Keys that the layer's cache lends to one query."""
    return length if layer.window is None else min(length, layer.window)


@lru_cache(maxsize=4096)
def cost_of(name: str, call: AttentionCall) -> Cost:
    """What a backend of ours costs for one call; of some patterns that takes a look at every row of blocks."""
    return backend(name).cost(call)


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
    if name == SDPA:
        return _sdpa(call, output)
    found = backend(name)
    running = found.workspace_bytes(call) + distance_bias_bytes(call)
    if name != "eager":  # whose worst moment is the softmax, before there is an output
        running += output
    elif not sees_every_key(call):
        running += call.query_length * call.key_length
    # Afterwards the output is copied into the layout that the model goes on with.
    copied = 0 if name in _MODELS_LAYOUT else 2 * output
    return Attention(nbytes=max(running, copied), formula=_held(name), source=found.source)


def window_bites(layer: LayerShape, length: int) -> bool:
    """Whether transformers makes a mask for SDPA: without a window, its flag says it all."""
    return layer.window is not None and length >= layer.window


def saved(name: str, call: AttentionCall) -> int:
    """Bytes that one call keeps until its backward pass, besides q, k, v and one output.

    Args:
        name: One of `CONTENDERS`.
        call: The call.

    Raises:
        UnsupportedCall: The backend has no backward pass, or none for a bias by distance.
    """
    if name in _NO_BACKWARD:
        raise UnsupportedCall(
            f"{name} has no backward pass.",
            "Train with triton, sdpa_flash, flex, transformers_sdpa or transformers_eager.",
        )
    if call.has_distance_bias:
        raise UnsupportedCall(
            f"The position bias is learned, and its gradient is not known here under {name}: PyTorch's SDPA chooses "
            "a kernel for it by device, and backends of ours give it none.",
            f"Train with {OWN}.",
        )
    if name == "sdpa_math":
        return 4 * _scores(call) + _widened(call)
    output = io_bytes(call)[1]
    if name == SDPA:
        masked = _added_mask(call)
        # With a mask, transformers gives each query head a key head of its own.
        return lse_bytes(call) + masked + (_repeated(call) if masked else 0)
    kept = lse_bytes(call) + (0 if name in _MODELS_LAYOUT else output)
    found = backend(name)
    masked = _mask_bytes(found, call)
    # Rows that see nothing are made 0 in a copy of the kernel's output, which stays for its gradient.
    return kept + masked + (output if masked and name in _MODELS_LAYOUT else 0)


def backward(name: str, call: AttentionCall) -> Attention:
    """What a backend holds while it runs the backward pass of a call.

    Args:
        name: One of `CONTENDERS` that has one.
        call: The call.
    """
    if name == "sdpa_math":
        # By then the output is gone, and its gradient.
        gone = 2 * io_bytes(call)[1]
        return Attention(
            nbytes=max(8 * _scores(call) - gone, 0),
            formula="B·H·n_q·n_k·(4 + 4), gradients of the probabilities and of the scores, less 2·B·H·n_q·d·s",
            source="autograd of softmax and of matmul, in their order",
        )
    return Attention(
        nbytes=io_bytes(call)[0] + lse_bytes(call),
        formula="gradients of q, k and v, and B·H·n_q·4, the rows' sums of gradient times output",
        source="https://arxiv.org/abs/2307.08691",
    )


def check_dtype(dtype: str) -> int:
    """Bytes of a compute dtype.

    Raises:
        InvalidCall: No such dtype, or not one that models are run in.
    """
    if dtype not in ("float32", "bfloat16", "float16"):
        raise InvalidCall(f"No dtype {dtype!r}.", "Use float32, bfloat16 or float16.")
    return getattr(torch, dtype).itemsize


def _sdpa(call: AttentionCall, output: int) -> Attention:
    if call.head_dim != call.value_dim:
        raise UnsupportedCall(
            "PyTorch chooses a kernel by device where values are not as wide as keys, "
            f"{call.value_dim} and {call.head_dim} here, and the math kernel on a CPU.",
            "Name a kernel: sdpa_math or sdpa_efficient.",
        )
    if call.has_distance_bias:
        return _sdpa_with_bias(call, output)
    return Attention(
        nbytes=output + lse_bytes(call) + _added_mask(call),
        formula="B·H·n_q·d·s + B·H·n_q·4, and B·n_q·n_k·s where a window bites",
        source=_INTEGRATION,
    )


def _sdpa_with_bias(call: AttentionCall, output: int) -> Attention:
    """A position bias goes in as a mask a head, with what is hidden put in, and laid out in a row."""
    pairs = call.query_length * call.key_length
    mask = call.query_heads * pairs * call.torch_dtype.itemsize
    made = mask if sees_every_key(call) else 2 * mask + pairs
    return Attention(
        nbytes=max(made, mask + output + lse_bytes(call)),
        formula="2·H·n_q·n_k·s + n_q·n_k while the mask is made of the position bias and what it hides; "
        "then H·n_q·n_k·s + B·H·n_q·d·s + B·H·n_q·4",
        source=_INTEGRATION,
    )


def _mask_bytes(found: Backend, call: AttentionCall) -> int:
    """Bytes of the mask that a kernel of SDPA is given, on the first of its devices."""
    if not isinstance(found, Sdpa):
        return 0
    return found.mask_bytes(call, torch.device(found.devices[0]))


def _added_mask(call: AttentionCall) -> int:
    """Bytes of the numbers that SDPA makes of transformers' booleans, where a window bites."""
    window = getattr(call.pattern, "window", None)
    if not isinstance(window, int) or window > call.key_length:
        return 0
    return call.batch * call.query_length * call.key_length * call.torch_dtype.itemsize


def _scores(call: AttentionCall) -> int:
    return call.batch * call.query_heads * call.query_length * call.key_length


def _repeated(call: AttentionCall) -> int:
    """Bytes that k and v take more than before, once they are there for each query head."""
    keys = call.batch * (call.query_heads - call.kv_heads) * call.key_length
    return keys * (call.head_dim + call.value_dim) * call.torch_dtype.itemsize


def _widened(call: AttentionCall) -> int:
    """Bytes that q, and k and v for each query head, take more in float32 than they do as they come."""
    size = call.torch_dtype.itemsize
    return (io_bytes(call)[0] + _repeated(call)) * 4 // size - io_bytes(call)[0]


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
