"""A number that was measured, or the reason why there is none: never a 0 that means "unknown"."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measured:
    """One figure of a measurement.

    Attributes:
        value: In the unit of whoever holds it; None where it could not be had.
        reason: Why not; empty where there is a value.
    """

    value: float | None
    reason: str = ""

    def __post_init__(self) -> None:
        assert (self.value is None) == bool(self.reason), "a value, or the reason for none"

    @classmethod
    def missing(cls, reason: str) -> "Measured":
        """No figure, and why."""
        return cls(None, reason)
