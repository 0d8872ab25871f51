"""Between which numbers a rule's parts lie, while i and j lie between some of their own.

One arithmetic for two uses. Over all positions there are, it proves when a rule is read that no
product leaves 64 bits and no divisor is zero. Over a block of pairs it says whether the rule shows
all of them, or none, without a look at one.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from attnscope.kernels.errors import UnknownPattern
from attnscope.kernels.patterns.rule_program import Step, carried_out

MOST_POSITION = 2**31 - 1

Bounds = tuple[Any, Any]
"""The least and the largest of a number, both included; of a condition, whether it holds for all,
and whether it may hold for any. Each an integer or an array."""

_LARGEST = 2**63 - 1


def check(steps: tuple[Step, ...]) -> None:
    """Refuses a rule that some position could make overflow, or divide by zero.

    Raises:
        UnknownPattern: Saying what.
    """
    # Objects, so that these integers have no limit of their own.
    anywhere = (np.array([0], object), np.array([MOST_POSITION], object))
    does = _DOES | {name: _checked(work) for name, work in _DOES.items() if name in _CHECKED}
    carried_out(steps, does, anywhere, anywhere)


def holds(steps: tuple[Step, ...], i: Bounds, j: Bounds) -> tuple[np.ndarray, np.ndarray]:
    """Whether a rule holds for all pairs of some rectangles, and whether it may hold for any.

    Args:
        steps: Of a rule that passed `check`.
        i: The first and the last query of each, int64, shapes that broadcast with those of `j`.
        j: The first and the last key.

    Returns:
        bool: where the first is true the rule holds for every pair, where the second is false for
        none; else one must look.
    """
    every, some = carried_out(steps, _DOES, i, j)
    return np.asarray(every), np.asarray(some)


def _checked(work: Callable[..., Bounds]) -> Callable[..., Bounds]:
    def bounded(*given: Bounds) -> Bounds:
        if work in (_quotient, _remainder) and _int(given[1][0]) <= 0 <= _int(given[1][1]):
            raise UnknownPattern(
                "The rule divides by what can be zero at some position.",
                "Divide by a number, or by what is never zero, such as j + 1.",
            )
        found = work(*given)
        if max(abs(_int(found[0])), abs(_int(found[1]))) > _LARGEST:
            raise UnknownPattern(
                "The rule's numbers leave 64 bits at large positions.",
                f"It must hold up to position {MOST_POSITION}: multiply fewer of them.",
            )
        return found

    return bounded


def _int(bound: Any) -> int:
    return int(bound[0]) if isinstance(bound, np.ndarray) else int(bound)


def _least(*bounds: Any) -> Any:
    return _extreme(bounds, min, np.minimum)


def _most(*bounds: Any) -> Any:
    return _extreme(bounds, max, np.maximum)


def _extreme(bounds: tuple[Any, ...], plain: Callable[..., Any], among: np.ufunc) -> Any:
    """Plain integers stay plain: as NumPy's they would have 64 bits."""
    found = bounds[0]
    for bound in bounds[1:]:
        both = isinstance(found, int) and isinstance(bound, int)
        found = plain(found, bound) if both else among(found, bound)
    return found


def _corners(work: Callable[[Any, Any], Any]) -> Callable[[Bounds, Bounds], Bounds]:
    """Of what grows or falls along each side alone, the extremes lie in the corners."""

    def bounds(a: Bounds, b: Bounds) -> Bounds:
        found = [work(one, other) for one in a for other in b]
        return _least(*found), _most(*found)

    return bounds


_product = _corners(lambda a, b: a * b)
_quotient = _corners(lambda a, b: a // b)


def _remainder(a: Bounds, b: Bounds) -> Bounds:
    """Exact where nothing wraps round: one divisor, and one quotient for all."""
    same = (b[0] == b[1]) & (a[0] // b[0] == a[1] // b[0])
    least, most = _least(b[0] + 1, 0), _most(b[1] - 1, 0)
    return _chosen(same, a[0] % b[0], least), _chosen(same, a[1] % b[0], most)


def _chosen(which: Any, one: Any, other: Any) -> Any:
    if isinstance(which, np.ndarray):
        return np.where(which, one, other)
    return one if which else other


def _absolute(a: Bounds) -> Bounds:
    return _most(a[0], -a[1], 0), _most(-a[0], a[1])


def _less(a: Bounds, b: Bounds) -> Bounds:
    return a[1] < b[0], a[0] < b[1]


def _no_more(a: Bounds, b: Bounds) -> Bounds:
    return a[1] <= b[0], a[0] <= b[1]


def _equal(a: Bounds, b: Bounds) -> Bounds:
    return (a[0] == b[1]) & (a[1] == b[0]), (a[0] <= b[1]) & (b[0] <= a[1])


def _not(a: Bounds) -> Bounds:
    return a[1] ^ True, a[0] ^ True


_DOES: dict[str, Callable[..., Bounds]] = {
    "number": lambda number: (number, number),
    "+": lambda a, b: (a[0] + b[0], a[1] + b[1]),
    "-": lambda a, b: (a[0] - b[1], a[1] - b[0]),
    "*": _product,
    "//": _quotient,
    "%": _remainder,
    "negative": lambda a: (-a[1], -a[0]),
    "abs": _absolute,
    "min": lambda a, b: (_least(a[0], b[0]), _least(a[1], b[1])),
    "max": lambda a, b: (_most(a[0], b[0]), _most(a[1], b[1])),
    "<": _less,
    "<=": _no_more,
    ">": lambda a, b: _less(b, a),
    ">=": lambda a, b: _no_more(b, a),
    "==": _equal,
    "!=": lambda a, b: _not(_equal(a, b)),
    "not": _not,
    "and": lambda a, b: (a[0] & b[0], a[1] & b[1]),
    "or": lambda a, b: (a[0] | b[0], a[1] | b[1]),
}
_CHECKED = ("+", "-", "*", "//", "%", "negative", "abs")
