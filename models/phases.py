"""A backend for each phase of generation: the prompt is prefilled, then tokens are decoded one by one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from attnscope.kernels.patterns.full import Full
from attnscope.kernels.triton.decode_plan import MOST_QUERIES
from attnscope.models.masks import Mask


@dataclass(frozen=True, slots=True, kw_only=True)
class Phases:
    """The backends of the two phases; `is_decode` says which phase a call belongs to.

    Attributes:
        prefill: The name of the backend that reads prompts.
        decode: The name of the one that adds to a cache.
    """

    prefill: str
    decode: str


Choice = str | Phases
"""The name of one backend for every call, or a name for each phase."""

Backends = Choice | Mapping[int, Choice]
"""One choice for all layers, or a choice by layer; layers not named run "eager"."""


def is_decode(query_length: int, key_length: int, mask: Mask) -> bool:
    """Whether a call decodes: a few new queries against keys that were there before.

    Few are `MOST_QUERIES`, as of speculative decoding; whoever prefills in pieces as small decodes.
    The first query stands behind the first key; where positions hide nothing (cross-attention) there are more
    keys than queries. So a prompt is a prefill whatever its length, also into a static cache, which
    has more keys than queries from the start.

    Args:
        query_length: Q.
        key_length: K, the unused end of a static cache included.
        mask: Of the call.
    """
    if query_length > MOST_QUERIES:
        return False
    everywhere = isinstance(mask.patterns[0], Full)
    return key_length > query_length if everywhere else mask.query_offset > 0


def backend_of(backends: Backends, layer: int, *, decodes: bool) -> str:
    """The name of the backend that runs one call of one layer."""
    choice = backends if isinstance(backends, str | Phases) else backends.get(layer, "eager")
    if isinstance(choice, str):
        return choice
    return choice.decode if decodes else choice.prefill


def named(backends: Backends) -> Iterator[str]:
    """Every name among the choices."""
    choices = [backends] if isinstance(backends, str | Phases) else backends.values()
    for choice in choices:
        yield from (choice,) if isinstance(choice, str) else (choice.prefill, choice.decode)
