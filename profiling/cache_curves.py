"""A model's key/value cache over length, with a mechanism and without it: the calculator's own figures.

B batch, G kv heads, H query heads, n tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from attnscope.models.liveness import Size
from attnscope.models.shape import LayerShape, ModelShape
from attnscope.profiling.cache_growth import PAGE
from attnscope.profiling.peak import cache_bytes
from attnscope.profiling.plan import Plan

Curve = Callable[[ModelShape, int, int], int]


def compared(
    shape: ModelShape, against: str, lengths: Sequence[int], *, reserved: int
) -> dict[str, tuple[int, ...]]:
    """Bytes of the cache of one sequence in bfloat16 at each length, by what they are.

    Args:
        shape: Of a decoder.
        against: A key of `AGAINST`.
        lengths: Tokens.
        reserved: Tokens of the longest sequence that room is kept for, where nothing is paged.
    """
    return {
        title: tuple(curve(shape, length, reserved) for length in lengths)
        for title, curve in AGAINST[against].items()
    }


def as_multi_head(shape: ModelShape) -> ModelShape:
    """The same model with a key/value head for every query head."""
    return replace(shape, layers=tuple(_multi_head(layer) for layer in shape.layers))


def windowless(shape: ModelShape) -> ModelShape:
    """The same model, every layer of which keeps all tokens."""
    return replace(shape, layers=tuple(replace(layer, window=None) for layer in shape.layers))


def _multi_head(layer: LayerShape) -> LayerShape:
    if not layer.is_attention:
        return layer
    group = layer.query_heads // layer.kv_heads
    cache = tuple(_widened(size, group) for size in layer.cache)
    return replace(layer, kv_heads=layer.query_heads, cache=cache)


def _widened(size: Size, times: int) -> Size:
    return replace(size, elements=size.elements * times)


def _plan(shape: ModelShape, page: int | None = None) -> Plan:
    own = "tiled" if shape.is_swappable else "transformers_eager"
    return Plan(shape=shape, backend=own, batch=1, dtype="bfloat16", phase="decode", page=page)


def _expanded(shape: ModelShape, length: int, reserved: int) -> int:
    del reserved
    widths = (layer.kv_heads * (layer.head_dim + layer.value_dim) for layer in shape.layers)
    return length * sum(widths) * _plan(shape).itemsize


def _held(shape: ModelShape, length: int, reserved: int) -> int:
    del reserved
    return cache_bytes(_plan(shape), length)


AGAINST: Mapping[str, Mapping[str, Curve]] = MappingProxyType(
    {
        "multi-head": {
            "heads of their own": lambda shape, n, reserved: _held(
                as_multi_head(shape), n, reserved
            ),
            "shared heads, as the model is": _held,
        },
        "windowless": {
            "every layer keeps all": lambda shape, n, reserved: _held(
                windowless(shape), n, reserved
            ),
            "with its window": _held,
        },
        "longest": {
            "room reserved for the longest": lambda shape, n, reserved: _held(
                shape, max(n, reserved), reserved
            ),
            f"pages of {PAGE} tokens": lambda shape, n, _: cache_bytes(_plan(shape, PAGE), n),
        },
        "expanded": {
            "keys and values of every head": _expanded,
            "latents": _held,
        },
    }
)
