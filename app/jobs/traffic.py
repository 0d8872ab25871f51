"""Long work gives way: it rests while somebody waits for a quick answer, and while their browser draws it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

_REST_AFTER_S = 0.25  # a browser on the same cores decodes and draws meanwhile
_MOST_REST_S = 1.0  # at one place: under steady traffic, long work goes on slowly


class Traffic:
    """The quick answers under way in one process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._under_way = 0
        self._last = -_REST_AFTER_S

    @contextmanager
    def passing(self) -> Iterator[None]:
        """A quick answer is being made."""
        with self._changed:
            self._under_way += 1
        try:
            yield
        finally:
            with self._changed:
                self._under_way -= 1
                self._last = monotonic()

    def give_way(self, stop: threading.Event) -> None:
        """Rest, a second at most, while quick answers are made and for a moment after; `stop` ends the rest."""
        until = monotonic() + _MOST_REST_S
        while (now := monotonic()) < until and not stop.is_set():
            with self._changed:
                rest_s = _REST_AFTER_S if self._under_way else self._last + _REST_AFTER_S - now
            if rest_s <= 0:
                return
            stop.wait(min(rest_s, until - now, 0.05))
