"""Rate and estimate of a job from the progress it reports."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Share of the whole done in a second, and seconds to the end; None while unknown."""

    share_per_s: float | None
    eta_s: float | None


class Pace:
    """Watches one job's share of work done, over the last seconds only: a slow start must not spoil the estimate.

    Args:
        window_s: How far back the rate looks.
        clock: Seconds, never going back.
    """

    def __init__(self, *, window_s: float = 10.0, clock: Callable[[], float] = monotonic) -> None:
        self._window_s = window_s
        self._clock = clock
        self._seen: deque[tuple[float, float]] = deque()

    def update(self, share: float) -> Estimate:
        """Take note of the share done now (0 to 1) and estimate."""
        now = self._clock()
        if self._seen and share < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((now, share))
        while len(self._seen) > 2 and now - self._seen[1][0] >= self._window_s:
            self._seen.popleft()
        (_then, before), elapsed = self._seen[0], now - self._seen[0][0]
        if elapsed <= 0 or share <= before:
            return Estimate(share_per_s=None, eta_s=0.0 if share >= 1 else None)
        rate = (share - before) / elapsed
        return Estimate(share_per_s=rate, eta_s=max(1.0 - share, 0.0) / rate)
