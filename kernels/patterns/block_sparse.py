"""A query sees its own block, and columns that everybody sees."""

from dataclasses import dataclass

from attnscope.kernels.patterns.pattern import Pattern, SpanPattern, require_integer
from attnscope.kernels.patterns.same_block import SameBlock
from attnscope.kernels.patterns.strided import Strided
from attnscope.kernels.patterns.united import United


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSparse(United):
    """i // block = j // block, or j mod stride = 0: both heads of the fixed pattern in one.

    Source: arXiv 1904.10509 §4.3, where both are causal and stride and block are one number.

    Attributes:
        block: Tokens of a block.
        stride: Tokens from one column to the next.
    """

    block: int
    stride: int

    def __post_init__(self) -> None:
        require_integer("block", self.block, least=1)
        require_integer("stride", self.stride, least=1)

    @property
    def key(self) -> str:
        """See `Pattern.key`."""
        return "block_sparse"

    @property
    def near(self) -> SpanPattern:
        """See `United.near`."""
        return SameBlock(block=self.block)

    @property
    def far(self) -> Pattern:
        """See `United.far`."""
        return Strided(stride=self.stride)
