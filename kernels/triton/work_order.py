"""In what order a few programs share all blocks of queries of all heads, each taking turns.

Static, so that a result never depends on which program was faster; and even, for the load of a
program is known from the rule: under a causal one the last queries see the most keys.
"""

import triton
import triton.language as tl
from torch import Tensor

CACHED_BYTES = 32 * 2**20
"""Keys and values that programs work on at a time: they stay in the 50 MB of Hopper's L2 cache."""


def section_heads(k_BGKD: Tensor, v_BGKD: Tensor, group: int) -> int:
    """How many query heads come in a section, `group` of which share a head of keys and values."""
    _, _, keys, head_dim = k_BGKD.shape
    a_head = keys * (head_dim + v_BGKD.shape[3]) * k_BGKD.element_size()
    return max(CACHED_BYTES // a_head, 1) * group


@triton.jit
def work_at(place, blocks, heads, section):
    """The block of queries and the head that come at this place in the order of work.

    Heads come in sections, whose keys stay in the cache; in a section, the last blocks of all its
    heads come first, which under a causal rule see the most keys.
    """
    first_head = place // (blocks * section) * section
    together = tl.minimum(section, heads - first_head)
    rest = place % (blocks * section)
    return blocks - 1 - rest // together, first_head + rest % together


@triton.jit
def place_of(turn, program, programs):
    """The place in the order of work that a program takes in its turn: to and fro, as a snake.

    Who got the longest work of one turn gets the shortest of the next.
    """
    return turn * programs + tl.where(turn % 2 == 0, program, programs - 1 - program)


@triton.jit
def turns_of(total, program, programs):
    """How many turns a program has when `total` blocks are to be done."""
    whole = total // programs
    return whole + tl.where(place_of(whole, program, programs) < total, 1, 0)
