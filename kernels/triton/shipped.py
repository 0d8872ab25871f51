"""Every kernel that ships, in every configuration: what is compiled and checked without a GPU.

An entry calls a host function as a user would, with tensors that have shapes and no memory, so what
is compiled is what a launch compiles. Capability 9.0 is written 90.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from attnscope.kernels.triton.exponentials import exponentials


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """One host function in one configuration.

    Attributes:
        name: Family first, then what sets this one apart.
        launch: Calls the host function on tensors of the `meta` device, configured for a compute
            capability.
        on_tensor_cores: Whether its tiles are tall enough, 64 rows, for a Hopper GPU's warp-group
            matrix instructions, and its numbers narrow enough, 16 bits.
    """

    name: str
    launch: Callable[[int], object]
    on_tensor_cores: bool


def every_shipped() -> tuple[Shipped, ...]:
    """Everything that ships, by family."""
    return (*_probes(),)


def _probes() -> tuple[Shipped, ...]:
    x_N = torch.empty(2**24, device="meta")

    def launch(capability: int) -> None:
        del capability
        exponentials(x_N, 512)

    return (Shipped(name="exponentials", launch=launch, on_tensor_cores=False),)
