"""Pixels of a grid that see their row and their column."""

from dataclasses import dataclass

from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.patterns.pattern import Pattern, SpanPattern, require_integer
from attnscope.kernels.patterns.same_block import SameBlock
from attnscope.kernels.patterns.strided_slide import StridedSlide
from attnscope.kernels.patterns.united import United


@dataclass(frozen=True, slots=True, kw_only=True)
class Axial(United):
    """Same row or same column of a grid in reading order (arXiv 1912.12180 §3): n·(h + w − 1) pairs.

    The paper takes one axis a layer; here both are in one pattern.

    Attributes:
        height: Rows of the grid.
        width: Tokens of a row.
    """

    height: int
    width: int

    def __post_init__(self) -> None:
        require_integer("height", self.height, least=1)
        require_integer("width", self.width, least=1)

    @property
    def key(self) -> str:
        """See `Pattern.key`."""
        return "axial"

    @property
    def near(self) -> SpanPattern:
        """The row."""
        return SameBlock(block=self.width)

    @property
    def far(self) -> Pattern:
        """The column."""
        return StridedSlide(stride=self.width)

    def check_lengths(self, queries: range, key_length: int) -> None:
        """Raises InvalidCall where a token lies outside the grid."""
        first, end = min(queries.start, 0), max(queries.stop, key_length)
        places = self.height * self.width
        if first < 0 or end > places:
            raise InvalidCall(
                f"a grid of height {self.height} and width {self.width} has {places} places, and the "
                f"positions go from {first} to {end - 1}.",
                "Choose height and width so that their product is at least the number of tokens.",
            )
