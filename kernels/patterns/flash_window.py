"""flash-attention's way of saying a window, and ours."""

from dataclasses import dataclass

from attnscope.kernels.errors import UnknownPattern
from attnscope.kernels.patterns.band import Band
from attnscope.kernels.patterns.causal import Causal
from attnscope.kernels.patterns.full import Full
from attnscope.kernels.patterns.local import Local
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.patterns.sliding_window import SlidingWindow


def from_flash_window(left: int, right: int) -> Pattern:
    """The pattern that flash-attention calls `window_size=(left, right)`.

    There a query sees i − left ≤ j ≤ i + right: its own key is not counted, so the window of one
    key is `(0, 0)` there and `window=1` here. −1 stands for no bound.

    Args:
        left: Keys seen before the query's own, or −1.
        right: Keys seen after the query's own, or −1.

    Raises:
        UnknownPattern: A window no family has (unequal sides other than a causal one).
    """
    if left == right == -1:
        return Full()
    if right == 0:
        return Causal() if left == -1 else SlidingWindow(window=left + 1)
    if left == right and left > 0:
        return Local(window=2 * left + 1)
    raise UnknownPattern(
        f"No pattern for flash-attention's window ({left}, {right}).",
        "Use (-1, -1) full, (-1, 0) causal, (w - 1, 0) sliding, or (h, h) local.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FlashWindow:
    """A band of keys as flash-attention is told it: there the last query stands at the last key.

    Attributes:
        keys: Which keys to give; no query sees any other.
        left: Keys seen before the query's own place, or None for no bound.
        right: Keys seen after it, or None; 0 is what is called causal there.
    """

    keys: range
    left: int | None
    right: int | None


def to_flash_window(
    seen: Band, *, query_offset: int, query_length: int, key_length: int
) -> FlashWindow | None:
    """How to say a band, wherever the queries stand, to who aligns the last query with the last key.

    Keys that no query sees are left out. Where the last key that is left lies ahead of the last
    query, every query's place moves ahead by as much, so the window reaches as much further back.

    Args:
        seen: Which keys a query sees around its own position.
        query_offset: Absolute position of the first query.
        query_length: How many queries.
        key_length: How many keys, from position 0 on.

    Returns:
        None where the queries end past the keys and do not all see all of these: some would see
        nothing, or flash-attention would take a window wider than the keys for no bound at all.
    """
    last_query = query_offset + query_length - 1
    bounded_left = seen.before < last_query
    bounded_right = query_offset + seen.after < key_length - 1
    if last_query >= key_length and (bounded_left or bounded_right):
        return None
    keys = seen.keys(query_offset, query_length, key_length)
    ahead = keys.stop - 1 - last_query
    return FlashWindow(
        keys=keys,
        left=seen.before + ahead if bounded_left else None,
        right=seen.after - ahead if bounded_right else None,
    )
