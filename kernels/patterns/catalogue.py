"""The families of patterns by key: the one list of what exists."""

from dataclasses import fields
from typing import Any

from attnscope.kernels.errors import UnknownPattern
from attnscope.kernels.patterns.axial import Axial
from attnscope.kernels.patterns.bigbird import BigBird
from attnscope.kernels.patterns.block_list import BlockList
from attnscope.kernels.patterns.block_sparse import BlockSparse
from attnscope.kernels.patterns.causal import Causal
from attnscope.kernels.patterns.chunked import Chunked
from attnscope.kernels.patterns.composed import compose
from attnscope.kernels.patterns.dilated import Dilated
from attnscope.kernels.patterns.full import Full
from attnscope.kernels.patterns.local import Local
from attnscope.kernels.patterns.longformer import Longformer
from attnscope.kernels.patterns.matrix import Matrix
from attnscope.kernels.patterns.packed import Packed
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.patterns.rule import Rule
from attnscope.kernels.patterns.sinks_window import SinksWindow
from attnscope.kernels.patterns.sliding_window import SlidingWindow
from attnscope.kernels.patterns.strided import Strided
from attnscope.kernels.patterns.strided_slide import StridedSlide
from attnscope.kernels.patterns.vertical_slash import VerticalSlash

FAMILIES: dict[str, type[Pattern]] = {
    "full": Full,
    "causal": Causal,
    "local": Local,
    "sliding_window": SlidingWindow,
    "sinks_window": SinksWindow,
    "dilated": Dilated,
    "longformer": Longformer,
    "bigbird": BigBird,
    "strided": Strided,
    "strided_slide": StridedSlide,
    "block_sparse": BlockSparse,
    "axial": Axial,
    "chunked": Chunked,
    "rule": Rule,
    "vertical_slash": VerticalSlash,
    "block_list": BlockList,
    "matrix": Matrix,
    "packed": Packed,
}
"""Every family, in display order."""


def pattern(key: str, *, causal: bool = False, **parameters: Any) -> Pattern:
    """The pattern of that family with those parameters.

    Args:
        key: One of `FAMILIES`.
        causal: Composes with j ≤ i.
        parameters: The family's attributes, all of them. A further family's key, with a mapping of its
            fields, composes with that one: what `Composed.parameters` says.

    Raises:
        UnknownPattern: No such key, a parameter is missing, unknown, or out of range; the message
            names the valid ones.
    """
    family = FAMILIES.get(key)
    if family is None:
        raise UnknownPattern(f"No pattern {key!r}.", f"Use one of {', '.join(FAMILIES)}.")
    names = [field.name for field in fields(family) if field.init]
    others = {
        name: parameters.pop(name) for name in FAMILIES if name in parameters and name not in names
    }
    if set(names) != set(parameters):
        given = ", ".join(parameters) or "none"
        raise UnknownPattern(
            f"Pattern {key!r} takes {', '.join(names) or 'no parameters'}; got {given}."
        )
    made: Pattern = family(**parameters)
    for name, given in others.items():
        made = compose(made, pattern(name, **given))
    return compose(made, Causal()) if causal else made
