"""Answers kept by least use under a byte limit, each computed once however many ask at the same time."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Answer = dict[str, Any]


@dataclass
class _Making:
    """One answer being made: the first holds the lock, the others wait for it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    waiting: int = 0


class Memo:
    """Answers by key; any thread may ask.

    Args:
        limit_bytes: Of all bodies kept; an answer larger than the limit is not kept.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Answer] = OrderedDict()
        self._making: dict[str, _Making] = {}
        self.nbytes = 0

    def get(self, key: str, make: Callable[[], Answer]) -> Answer:
        """The answer of that key; made by the first who asks while the others wait. What `make` raises is not kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            making = self._making.setdefault(key, _Making())
            making.waiting += 1
        try:
            with making.lock:
                with self._lock:
                    if key in self._kept:
                        return self._kept[key]
                answer = make()
                with self._lock:
                    self._keep(key, answer)
                return answer
        finally:
            with self._lock:
                making.waiting -= 1
                if not making.waiting:
                    self._making.pop(key, None)

    def _keep(self, key: str, answer: Answer) -> None:
        self._kept[key] = answer
        self.nbytes += _size(answer)
        while self.nbytes > self._limit_bytes and self._kept:
            _, gone = self._kept.popitem(last=False)
            self.nbytes -= _size(gone)


def _size(answer: Answer) -> int:
    return len(answer.get("body", b"")) + 1024
