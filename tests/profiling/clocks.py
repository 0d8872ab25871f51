"""A clock that the test turns, and calls that take as long as they say."""

from collections.abc import Callable

from attnscope.profiling.latency import Clock


class Hands:
    """A device of which every run takes a known time, and a log of what was run."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def pass_by(self, seconds: float) -> None:
        self.now += seconds

    def takes(self, name: str, *seconds: float) -> Callable[[], None]:
        """A call that takes these seconds, one after the other, then always the last."""
        left = list(seconds)

        def call() -> None:
            self.log.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return call

    @property
    def clock(self) -> Clock:
        return Clock(
            kind="a test's",
            mark=lambda: self.now,
            between=lambda start, end: end - start,
            wait=lambda: None,
            host=lambda: self.now,
        )
