"""The probe of the exponential unit, which `scripts/gpu` measures as a ceiling."""

from collections.abc import Iterator

import torch

from attnscope.kernels.triton.exponentials import exponentials
from attnscope.kernels.triton.shipped.entry import CAPABILITIES, Shipped


def probes() -> Iterator[Shipped]:
    """The one."""
    yield Shipped(name="exponentials", capabilities=CAPABILITIES, launch=_launch, wants_wgmma=False)


def _launch(capability: int) -> None:
    del capability
    exponentials(torch.empty(2**24, device="meta"), 512)
