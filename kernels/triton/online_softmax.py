"""The online softmax of one program, for kernels to share (arXiv 1805.02867, 2205.14135).

A program holds R rows (queries), visits tiles of C keys, and keeps for each row the highest score
so far, the total of its weights and its output, both relative to that score. `start`, `score` and
`update` hold natural scores: less one factor's rounding than powers of 2, for two operations more.
Names: p_ pointers, b_ blocks, o_ offsets, m_ masks.
"""

import math

import triton
import triton.language as tl

LOG2_E = math.log2(math.e)
LN_2 = tl.constexpr(math.log(2))
# Not −inf, for −inf − (−inf) would be NaN in a row that sees nothing yet; log2(e) times it is finite.
LOWEST = tl.constexpr(-(2.0**126))


def score_factors(scale: float, softcap: float | None) -> tuple[float, float]:
    """What q·k is multiplied by, before and after the tanh of a softcap, to give powers of 2.

    Without a softcap the second factor is unused.
    """
    if softcap is None:
        return scale * LOG2_E, 1.0
    return scale / softcap, softcap * LOG2_E


@triton.jit
def tanh(b_x):
    """Tanh by exp2, which the interpreter has too; never overflows."""
    b_small = tl.exp2(tl.abs(b_x) * -2.8853900817779268)  # 2 · log2(e)
    b_size = (1 - b_small) / (1 + b_small)
    return tl.where(b_x < 0, -b_size, b_size)


@triton.jit
def start(p_sinks, o_heads, m_rows, joins, WIDTH: tl.constexpr, HAS_SINKS: tl.constexpr):
    """Output, total and highest of rows that saw nothing yet but, where `joins`, their sink.

    A sink is a first key whose value is 0, its weight 1 relative to itself; one of −inf is none.
    """
    b_out = tl.zeros([o_heads.shape[0], WIDTH], tl.float32)
    b_total = tl.zeros([o_heads.shape[0]], tl.float32)
    b_highest = tl.full([o_heads.shape[0]], LOWEST, tl.float32)
    if HAS_SINKS:
        b_sinks = tl.load(p_sinks + o_heads, mask=m_rows & joins, other=LOWEST).to(tl.float32)
        b_highest = tl.maximum(b_sinks, LOWEST)
        b_total = tl.where(b_sinks > LOWEST, 1.0, 0.0)
    return b_out, b_total, b_highest


@triton.jit
def score(b_queries, b_keys, scale, softcap, HAS_SOFTCAP: tl.constexpr):
    """Scores `[R, C]` of queries `[R, D]` and keys `[D, C]`."""
    b_scores = tl.dot(b_queries, b_keys, input_precision="ieee") * scale
    if HAS_SOFTCAP:
        b_scores = tanh(b_scores / softcap) * softcap
    return b_scores


@triton.jit
def exponential(b_x):
    """Exp of what is not above 0, by exp2."""
    return tl.exp2(b_x * 1.4426950408889634)  # log2(e)


@triton.jit
def update(b_out, b_total, b_highest, b_scores, b_values):
    """The state after one more tile: scores `[R, C]`, −inf where hidden, and values `[C, V]`."""
    b_new = tl.maximum(b_highest, tl.max(b_scores, 1))
    b_shrink = exponential(b_highest - b_new)
    b_weights = exponential(b_scores - b_new[:, None])
    b_total = b_total * b_shrink + tl.sum(b_weights, 1)
    b_out = b_out * b_shrink[:, None]
    b_out = tl.dot(b_weights.to(b_values.dtype), b_values, b_out, input_precision="ieee")
    return b_out, b_total, b_new


@triton.jit
def weigh(b_total, b_highest, b_scores, unit):
    """The weights of one more tile of scores `[R, C]`, −inf where hidden, and the state after it.

    `unit` makes powers of 2 of the scores, in the instruction of the subtraction: it saves a product
    a score. It is above 0.

    Returns:
        The weights, what the output shrinks by before they are added, the total and the highest.
    """
    b_new = tl.maximum(b_highest, tl.max(b_scores, 1) * unit)
    b_weights = tl.exp2(b_scores * unit - b_new[:, None])
    b_shrink = tl.exp2(b_highest - b_new)
    return b_weights, b_shrink, b_total * b_shrink + tl.sum(b_weights, 1), b_new


@triton.jit
def finish(b_total, b_highest, unit=LN_2):
    """What outputs are divided by, and the natural log-sum-exp: 1 and −inf where nothing is seen.

    `unit` is that of the highest score: ln 2 for powers of 2, 1 for natural scores.
    """
    b_safe = tl.where(b_total == 0, 1.0, b_total)
    b_lse = b_highest * unit + tl.log2(b_safe) * LN_2
    return b_safe, tl.where(b_total == 0, float("-inf"), b_lse)
