"""Every kernel that ships, in every configuration: what is compiled and checked without a GPU.

An entry calls a host function as a user would, with tensors that have shapes and no memory, so what
is compiled is what a launch compiles. Compute capability 9.0 is written 90.

A module a family; each lists its kernels in the configurations that its users meet.
"""

from itertools import chain

from attnscope.kernels.triton.shipped.block_sparse import block_sparses
from attnscope.kernels.triton.shipped.decode import decodes
from attnscope.kernels.triton.shipped.entry import CAPABILITIES, Shipped
from attnscope.kernels.triton.shipped.flash import flash_backwards, flash_forwards
from attnscope.kernels.triton.shipped.flash_gluon import flash_gluons
from attnscope.kernels.triton.shipped.flash_hopper import flash_hoppers
from attnscope.kernels.triton.shipped.linear import linears
from attnscope.kernels.triton.shipped.maps import map_kernels
from attnscope.kernels.triton.shipped.probes import probes

__all__ = ["BELOW_STANDARD", "CAPABILITIES", "Shipped", "every_shipped"]

_FAMILIES = (
    flash_forwards,
    flash_hoppers,
    flash_gluons,
    flash_backwards,
    decodes,
    block_sparses,
    linears,
    map_kernels,
    probes,
)

BELOW_STANDARD = {
    # Ptxas gives two registers or six of 80 to the stack rather than one block fewer a multiprocessor.
    "flash_forward, float32, 256, causal": (80,),
    "flash_backward, float32, 256, causal": (86, 90),
    # Blocks of 64 keys, which wgmma wants, spill 22 registers and more: two gradients 256 wide are
    # 128 registers a thread.
    "flash_backward, bfloat16, 128, causal": (90,),
    "flash_backward, bfloat16, 128, full": (90,),
    "flash_backward, bfloat16, 128, window": (90,),
    "flash_backward, bfloat16, 128, window, softcap, sink logits, padding": (90,),
    "flash_backward, bfloat16, 256, causal": (90,),
    "flash_backward, bfloat16, 256, full": (90,),
    "flash_backward, bfloat16, 256, window": (90,),
    "flash_backward, bfloat16, 256, bias by distance": (86, 90),
    "flash_backward, bfloat16, 256, packed": (90,),
    "flash_backward, bfloat16, 256, window, softcap, sink logits, padding": (80, 90),
    "map_cells, bfloat16, 128, sinks and window, uneven": (86,),
    "map_cells, bfloat16, 128, window, uneven": (86,),
    # With 3.6.0 or 3.9.0 only.
    "block_sparse, float32, 128, sinks and window, softcap, sink logits, padding": (86,),
    "flash_backward, bfloat16, 64, full": (90,),
    "flash_backward, bfloat16, 64, full, padding, bias by distance": (90,),
    "flash_backward, bfloat16, 64, packed": (80,),
    "flash_backward, bfloat16, 64, window, softcap, sink logits, padding": (90,),
    "flash_backward, bfloat16, 128, bias by distance": (90,),
    "flash_backward, float32, 64, causal": (80,),
    "flash_forward, bfloat16, 128, packed": (90,),
    "flash_gluon, bfloat16, 64, causal": (90,),
    "flash_gluon, bfloat16, 64, window": (90,),
    "flash_gluon, bfloat16, 128, causal": (90,),
    "flash_gluon, float16, 128, causal": (90,),
    "flash_forward, bfloat16, 128, sinks and window": (90,),
    "linear, bfloat16, 64, causal, 256 features given": (90,),
    "linear, bfloat16, 128, causal, 256 features given": (90,),
    "linear, bfloat16, 128, causal, padding": (80, 86),
    "linear, bfloat16, 256, causal": (86,),
    "linear, float32, 128, causal": (90,),
    "map_cells, bfloat16, 128, each pair": (86,),
    "map_cells, bfloat16, 128, window, softcap, sink logits, padding, uneven": (86,),
    "row_sums, bfloat16, 256, window, softcap, sink logits, padding": (90,),
    "row_sums, float32, 64, causal": (90,),
    "top_keys, float32, 256, causal": (80,),
}
"""Known to spill 55 registers at most with one of the versions of Triton recorded (six with 3.7.1, which is
pinned), or to miss wgmma: right, slower than need be, and held to the record like the rest."""


def every_shipped() -> tuple[Shipped, ...]:
    """Everything that ships, by family."""
    return tuple(chain.from_iterable(family() for family in _FAMILIES))
