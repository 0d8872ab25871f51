"""A rule that has no arithmetic: booleans looked up by number, on a processor or in a compiled kernel.

N numbers.
"""

from copy import copy
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

Holder = TypeVar("Holder")

_LEAST = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Lookup:
    """Which numbers are chosen; those below 0 and past the end are taken for the first and the last.

    Attributes:
        seen_N: bool. The last is False, but for `Lookup.of_table`.
    """

    seen_N: Tensor

    @classmethod
    def of(cls, chosen: Tensor) -> "Lookup":
        """The lookup by which these numbers, 0 or more, are chosen, and no others."""
        most = int(chosen.max()) if len(chosen) else 0
        # Of a size that is a power of 2, or FlexAttention's C++ does not compile.
        seen_N = torch.zeros(max(_LEAST, 1 << (most + 1).bit_length()), dtype=torch.bool)
        seen_N[chosen] = True
        return cls(seen_N)

    def at(self, number: Tensor) -> Tensor:
        """Whether each number is chosen: bool of its shape."""
        seen_N = self.seen_N.to(number.device)
        return seen_N[number.clamp(0, len(seen_N) - 1)]

    def on(self, device: torch.device) -> "Lookup":
        """The same lookup for a compiler: on the device already, its size a constant."""
        # Here, for only compilers ask: its import takes as long as PyTorch's own.
        from torch import _dynamo

        # A copy: a mark on a tensor of the caller's would outlive the kernel.
        placed_N = self.seen_N.to(device, copy=True)
        _dynamo.mark_static(placed_N)
        return Lookup(placed_N)


def placed_lookup(holder: Holder, name: str, device: torch.device) -> Holder:
    """A copy of a frozen pattern whose lookup of that name is on the device."""
    placed: Any = copy(holder)
    object.__setattr__(placed, name, getattr(holder, name).on(device))
    return placed
