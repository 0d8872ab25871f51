"""The families of patterns with their parameters solved for a budget: a share of the visible pairs."""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt
from typing import Any, TypeVar

import torch

from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.patterns.composed import compose
from attnscope.kernels.patterns.pattern import Pattern

SINKS = 4
"""First tokens that everybody sees, as StreamingLLM has them (arXiv 2309.17453 §3.2)."""
RANDOM_BLOCKS = 3
"""As BigBird has them (arXiv 2007.14062, appendix E.1)."""

Make = Callable[[int], Pattern]
Family = TypeVar("Family", bound=Pattern)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How many pairs may be kept of those that a layer shows.

    Attributes:
        share: Of the visible pairs, above 0 and at most 1.
        own: The layer's own rule.
        queries: Absolute positions.
        key_length: Keys.

    Raises:
        InvalidCall: A share out of range, or so small that no pair is kept.
    """

    share: float
    own: Pattern
    queries: range
    key_length: int

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise InvalidCall(
                f"a budget is a share of the visible pairs above 0 and at most 1, got {self.share}."
            )
        if not self.pairs:
            raise InvalidCall(
                f"a budget of {self.share} keeps none of the {self.visible} visible pairs.",
                f"Give {1 / max(self.visible, 1):.2g} or more.",
            )

    @property
    def visible(self) -> int:
        """Pairs that the layer shows."""
        return self.kept(self.own)

    @property
    def pairs(self) -> int:
        """Pairs that may be kept."""
        return int(self.share * self.visible)

    def kept(self, found: Pattern) -> int:
        """Pairs that a pattern keeps of those that the layer shows."""
        both = found if found == self.own else compose(found, self.own)
        lengths = len(self.queries), self.key_length
        return both.kept_pairs(*lengths, query_offset=self.queries.start)

    def most(self, make: Callable[[int], Family], within: range) -> Family | None:
        """The pattern that keeps most within the budget; along `within`, they keep more and more."""
        fits = bisect_right(within, self.pairs, key=lambda number: self.kept(make(number)))
        return make(within[fits - 1]) if fits else None


def offered(budget: Budget) -> tuple[Pattern, ...]:
    """A pattern of each family, keeping as much as the budget allows; none of a family that cannot.

    What is no matter of degree is as in the papers: 4 sinks, dilation 2, 3 random blocks, columns √n
    apart or more.
    """
    length, pairs = budget.key_length, budget.pairs
    root = max(isqrt(length), 1)
    grain = 64 if length >= 64**2 else 16
    blocks: dict[str, Any] = {
        "random_blocks": RANDOM_BLOCKS,
        "block": grain,
        "global_tokens": grain,
        "seed": 0,
    }
    window: list[Make] = [
        lambda w: pattern("sliding_window", window=w),
        lambda w: pattern("sinks_window", window=w, sinks=SINKS),
        lambda w: pattern("dilated", window=w, dilation=2),
        lambda w: pattern("longformer", window=w, global_tokens=SINKS),
        lambda w: pattern("chunked", chunk=w),
    ]
    if _looks_ahead(budget):
        # Of a causal layer, it would be the sliding window once more.
        window.append(lambda w: pattern("local", window=w))
    growing = [
        *((make, range(1, length + 1)) for make in window),
        (lambda w: pattern("bigbird", window=w * grain, **blocks), range(1, length // grain + 1)),
        (lambda w: pattern("axial", height=-(-length // w), width=w), range(root, length + 1)),
    ]
    shrinking: list[Make] = [
        lambda s: pattern("strided", stride=s),
        lambda s: pattern("strided_slide", stride=s),
        lambda s: pattern("block_sparse", block=root, stride=s),
    ]
    found = [budget.most(make, within) for make, within in growing]
    found += [budget.most(make, range(length, 0, -1)) for make in shrinking]
    return tuple(each for each in found if each is not None and 0 < budget.kept(each) <= pairs)


def _looks_ahead(budget: Budget) -> bool:
    """Whether the first query sees the key after it."""
    first = budget.queries.start
    return first + 1 < budget.key_length and bool(
        budget.own.visible(torch.tensor(first), torch.tensor(first + 1))
    )
