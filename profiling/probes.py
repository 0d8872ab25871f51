"""Calls that do one thing only, so that their rate is a ceiling of the device: a product, a copy.

PyTorch is all that this needs: a GPU machine measures its ceilings with no more.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A call that does nothing but what is measured.

    Attributes:
        call: Does it once.
        amount: Of FLOP, or of bytes read and written.
    """

    call: Callable[[], object]
    amount: int


def matmul_probe(device: torch.device, dtype: str, side: int) -> Probe:
    """A product of square matrices of random numbers, 2·side³ FLOP."""
    kind = getattr(torch, dtype)
    a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
    product = torch.empty_like(a)
    return Probe(call=lambda: torch.mm(a, b, out=product), amount=2 * side**3)


def copy_probe(device: torch.device, nbytes: int) -> Probe:
    """A copy from one place of the device's memory to another: as many bytes read, and written."""
    source = torch.randn(nbytes // 4, device=device)
    copied = torch.empty_like(source)
    return Probe(call=lambda: copied.copy_(source), amount=2 * (nbytes // 4) * 4)
