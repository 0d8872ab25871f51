"""How the key/value cache grows while tokens are generated: contiguous, or in pages (Kwon et al. 2023).

https://arxiv.org/abs/2309.06180: pages waste less than one page a sequence, where a cache that is reserved for the
longest wastes all that is not written yet.
"""

from dataclasses import dataclass, replace

from attnscope.kernels.errors import InvalidCall
from attnscope.models.shape import LayerShape, ModelShape
from attnscope.profiling.attention_memory import positions
from attnscope.profiling.peak import entry_bytes, held_cache
from attnscope.profiling.plan import Plan

PAGE = 16
"""Tokens of a page, as vLLM has them."""

_POINTS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheGrowth:
    """Bytes of the cache of all sequences, as each gets longer.

    Attributes:
        batch: Sequences.
        dtype: Of the cache.
        page: Tokens of a page.
        tokens: Of a sequence, ascending, the longest last.
        grown: Contiguous, made anew for each token: what transformers' own cache holds.
        paged: In whole pages.
        reserved: Contiguous, and as long as the longest from the start.
    """

    batch: int
    dtype: str
    page: int
    tokens: tuple[int, ...]
    grown: tuple[int, ...]
    paged: tuple[int, ...]
    reserved: int


def cache_growth(
    shape: ModelShape, *, longest: int, batch: int = 1, dtype: str = "bfloat16", page: int = PAGE
) -> CacheGrowth:
    """The bytes at up to 128 lengths from one token to the longest.

    Args:
        shape: The model.
        longest: Tokens of a sequence at most.
        batch: Sequences.
        dtype: Of the cache.
        page: Tokens of a page.

    Raises:
        InvalidCall: The model keeps no cache, or a number below 1.
    """
    if longest < 1:
        raise InvalidCall(f"A sequence has at least 1 token, got {longest}.")
    paged = Plan(shape=shape, backend="eager", batch=batch, dtype=dtype, phase="decode", page=page)
    contiguous = replace(paged, page=None)
    points = min(longest, _POINTS)
    tokens = tuple(1 + at * (longest - 1) // max(points - 1, 1) for at in range(points))
    return CacheGrowth(
        batch=batch,
        dtype=dtype,
        page=page,
        tokens=tokens,
        grown=tuple(_held(contiguous, each) for each in tokens),
        paged=tuple(_held(paged, each) for each in tokens),
        reserved=_held(contiguous, longest),
    )


def _held(plan: Plan, length: int) -> int:
    return sum(held_cache(plan, layer, length) for layer in range(len(plan.shape.layers)))


def generation_cache(
    shape: ModelShape,
    *,
    prompt: int,
    tokens: int,
    dtype: str,
    reserved: bool = False,
    source: int = 0,
) -> tuple[tuple[int, ...], ...]:
    """Bytes that transformers' own cache holds after each token said, by its entries.

    The first token is said when the prompt was read, and each later one when one more was. After a prompt longer than
    a window all of it stays in memory until the next step; then a window's positions do.

    Args:
        shape: A decoder, or an encoder-decoder, whose decoder's own entries come first, then those of its source.
        prompt: Tokens read before the first is said.
        tokens: Said in all.
        dtype: Of the cache.
        reserved: A cache as long as will be needed from the start, which transformers calls static.
        source: Tokens of an encoder-decoder's source.

    Raises:
        InvalidCall: The model keeps no cache.
    """
    plan = Plan(
        shape=shape,
        backend="eager" if shape.is_swappable else "transformers_eager",
        batch=1,
        dtype=dtype,
        phase="decode",
    )
    cached = [layer for layer in shape.layers if layer.cache]
    own, read = (cached[::2], cached[1::2]) if shape.is_encoder_decoder else (cached, [])
    longest = prompt + tokens - 1
    crossed = tuple(entry_bytes(plan, layer, source) for layer in read)

    def held(layer: LayerShape, step: int) -> int:
        if reserved:
            return entry_bytes(plan, layer, positions(layer, longest))
        length = prompt + step
        return entry_bytes(plan, layer, positions(layer, length) if step else length)

    return tuple((*(held(layer, step) for layer in own), *crossed) for step in range(tokens))
