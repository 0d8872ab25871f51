"""In what order a few programs share all blocks of queries of all heads, each taking turns.

Static, so that a result never depends on which program was faster; and even, for the load of a
program is known from the rule: under a causal one the last queries see the most keys.
"""

import triton
import triton.language as tl


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
