"""What a capture will hold, said before it is made."""

from dataclasses import dataclass

from attnscope.kernels.errors import CaptureTooLarge
from attnscope.models.memory import in_words


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturePlan:
    """What a capture will hold, before it is made.

    Attributes:
        layers: The layers it captures.
        bytes_per_layer: Bytes of each of them.
        shared_bytes: Padding masks, held once for all layers.
        batch: Sequences.
        length: Tokens of the longest; the others are padded to it.
    """

    layers: tuple[int, ...]
    bytes_per_layer: tuple[int, ...]
    shared_bytes: int
    batch: int
    length: int

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return sum(self.bytes_per_layer) + self.shared_bytes

    def fitting(self, byte_budget: int) -> int:
        """How many of the layers, from the first, fit the budget."""
        left, count = byte_budget - self.shared_bytes, 0
        for size in self.bytes_per_layer:
            left -= size
            count += left >= 0
        return count

    def check(self, byte_budget: int) -> None:
        """Refuses a capture that would hold more.

        Raises:
            CaptureTooLarge: Says what it needs, what it may hold, and how many layers fit.
        """
        if self.total_bytes <= byte_budget:
            return
        fitting = self.fitting(byte_budget)
        advice = f"Capture at most {fitting} layers, or use" if fitting else "Use"
        raise CaptureTooLarge(
            f"Capturing {len(self.layers)} layers of {self.batch} by {self.length} tokens holds "
            f"{in_words(self.total_bytes)}, over the budget of {in_words(byte_budget)}; "
            f"{fitting} layers fit.",
            f"{advice} a shorter prompt, or a larger budget.",
        )
