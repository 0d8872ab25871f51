"""flash-attention's way of saying a window, and ours."""

from attnscope.kernels.errors import UnknownPattern
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
