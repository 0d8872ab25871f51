"""How long a context, or how large a batch, fits a memory: solved, then checked on both sides.

Between its turning points (another part becomes the worst, a window fills) the peak is a polynomial of
degree two at most: three values give it, and its root is the answer on that piece. The answer is
checked against the estimate itself: it fits, and one more does not.
"""

from collections.abc import Callable
from dataclasses import replace
from math import isqrt
from typing import Any

from attnscope.kernels.errors import AttnscopeError, InvalidCall
from attnscope.models.pass_inputs import Phase
from attnscope.models.shape import ModelShape
from attnscope.profiling.attention_memory import CONTENDERS
from attnscope.profiling.peak import peak_bytes
from attnscope.profiling.plan import Plan

MOST = 1 << 30
"""Answers stop here: more tokens, or sequences, than any machine has been given."""


def longest(
    shape: ModelShape,
    *,
    memory_bytes: int,
    backend: str,
    batch: int = 1,
    dtype: str = "bfloat16",
    phase: Phase = "prefill",
    **options: Any,
) -> int:
    """The longest context that fits, in tokens; 0 when not even one does.

    Args:
        shape: As `shape_of` makes it.
        memory_bytes: What there is, a reserve for the driver's context already taken off.
        backend: See `calculator.Plan`, as for all that follow.
        batch: Sequences.
        dtype: Compute dtype.
        phase: prefill, decode or training.
        options: The rest of the plan: `all_logits`, `page`, `optimizer`, `checkpointing`.

    Raises:
        InvalidCall: A memory of less than nothing, or what `estimate` refuses.
    """
    plan = Plan(shape=shape, backend=backend, batch=batch, dtype=dtype, phase=phase, **options)
    return longest_of(plan, memory_bytes)


def longest_of(plan: Plan, memory_bytes: int) -> int:
    """As `longest`, for a plan."""
    return largest(lambda length: peak_bytes(plan, length), _checked(memory_bytes))


def largest_batch(
    shape: ModelShape,
    *,
    memory_bytes: int,
    backend: str,
    length: int,
    dtype: str = "bfloat16",
    phase: Phase = "prefill",
    **options: Any,
) -> int:
    """The most sequences of this length that fit; 0 when not even one does.

    Args:
        shape: See `longest`.
        memory_bytes: See `longest`.
        backend: See `longest`.
        length: Tokens a sequence.
        dtype: See `longest`.
        phase: See `longest`.
        options: See `longest`.
    """
    plan = Plan(shape=shape, backend=backend, batch=1, dtype=dtype, phase=phase, **options)
    return largest_batch_of(plan, memory_bytes, length)


def largest_batch_of(plan: Plan, memory_bytes: int, length: int) -> int:
    """As `largest_batch`, for a plan whose own batch is not read."""
    return largest(
        lambda batch: peak_bytes(replace(plan, batch=batch), length), _checked(memory_bytes)
    )


def first_that_fits(
    shape: ModelShape,
    *,
    memory_bytes: int,
    length: int,
    backends: tuple[str, ...] = CONTENDERS,
    **options: Any,
) -> str | None:
    """The first of these backends whose peak fits, or None.

    Args:
        shape: See `longest`.
        memory_bytes: See `longest`.
        length: Tokens a sequence.
        backends: In order of preference.
        options: The rest of the plan, with `batch`, `dtype` and `phase`.
    """
    given = {"batch": 1, "dtype": "bfloat16", "phase": "prefill", **options}
    for name in backends:
        try:
            plan = Plan(shape=shape, backend=name, **given)
            fits = peak_bytes(plan, length) <= _checked(memory_bytes)
        except AttnscopeError:  # a backend that cannot train, say, does not fit
            continue
        if fits:
            return name
    return None


def largest(total: Callable[[int], int], budget: int) -> int:
    """The x up to `MOST` with total(x) ≤ budget < total(x + 1); 0 when total(1) is over it.

    Args:
        total: Bytes; grows with x, piece by piece a polynomial of degree two at most.
        budget: Bytes.
    """
    low, high, at = 0, MOST + 1, 3
    while high - low > 1:
        width = high - low
        root = min(max(_root(total, at, budget), low), high - 1)
        for x in (root, root + 1):
            low, high = _narrowed(total, budget, x, low, high)
        at = max(3, root)
        if width // 2 < high - low > 1:
            # The root was of another piece: the next is solved halfway, in orders of magnitude.
            at = max(3, isqrt(max(low, 1) * high))
            low, high = _narrowed(total, budget, min(max(at, low + 1), high - 1), low, high)
    return low


def _narrowed(
    total: Callable[[int], int], budget: int, x: int, low: int, high: int
) -> tuple[int, int]:
    if not low < x < high:
        return low, high
    return (x, high) if total(x) <= budget else (low, x)


def _root(total: Callable[[int], int], at: int, budget: int) -> int:
    """Where the parabola through a third, two thirds and all of `at` meets the budget."""
    step = at // 3
    first, second, third = (total(step * times) for times in (1, 2, 3))
    curve, slope = third - 2 * second + first, second - first
    # In steps u from the first point: curve·u² + (2·slope − curve)·u − 2·(budget − first) = 0.
    if curve <= 0:
        return step + step * (budget - first) // slope if slope > 0 else MOST
    linear = 2 * slope - curve
    discriminant = linear * linear + 8 * curve * (budget - first)
    if discriminant < 0:
        return 0
    return step + step * (isqrt(discriminant) - linear) // (2 * curve)


def _checked(memory_bytes: int) -> int:
    if memory_bytes < 0:
        raise InvalidCall(f"The memory must be at least 0 bytes, got {memory_bytes}.")
    return memory_bytes
