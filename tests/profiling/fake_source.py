"""A source that counts, for a sampler in a process of its own."""

import time

from attnscope.profiling.sources import Sample


class Counting:
    def __init__(self, first: int) -> None:
        self.next = first
        self.missing = {"power_w": "it has no meter"}

    def read(self) -> Sample:
        self.next += 1
        return Sample(at_s=time.monotonic(), device_bytes=self.next)


def counting(target: str, pid: int) -> Counting:
    return Counting(int(target))


def broken(target: str, pid: int) -> Counting:
    raise RuntimeError(f"{target} of {pid}")
