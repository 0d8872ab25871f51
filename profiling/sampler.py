"""Watching a device from a process of its own, so that watching does not disturb what is watched.

The process reads a source at a steady rate and writes each sample as a line of JSON to a pipe; a
thread here takes them up. It ends when its standard input closes, which the kernel does the moment
the parent ends, however that happens.

    python -m attnscope.profiling.sampler <source> <target> <pid> <hertz>
"""

import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from attnscope.kernels.errors import AttnscopeError, InvalidCall
from attnscope.profiling.sources import FIGURES, Sample, Source, open_source

SLOWEST_HZ, FASTEST_HZ = 0.1, 200.0
_PATIENCE_S = 10.0


class Sampler:
    """A running sampler; a context manager.

    Args:
        source: `module:function` of `open_source`, such as `sources.MACHINE`.
        target: Which device, in the source's own terms.
        hz: Samples a second.
        pid: Whose memory is told apart; this process's when None.
        on_sample: Called with every sample, on the sampler's thread.
        environment: Added to the process's environment.

    Attributes:
        samples: Those taken so far, in order.
        missing: Why a figure is not available, by its name in `Sample`; every figure where the
            source could not be opened.
    """

    def __init__(
        self,
        source: str,
        target: str = "",
        *,
        hz: float = 10.0,
        pid: int | None = None,
        on_sample: Callable[[Sample], None] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        if not SLOWEST_HZ <= hz <= FASTEST_HZ:
            raise InvalidCall(
                f"A sampler takes {SLOWEST_HZ:g} to {FASTEST_HZ:g} samples a second, not {hz:g}."
            )
        self.samples: list[Sample] = []
        self.missing: dict[str, str] = {}
        self._on_sample = on_sample
        self._started = threading.Event()
        self._command = [sys.executable, "-m", "attnscope.profiling.sampler"]
        self._command += [source, target, str(os.getpid() if pid is None else pid), str(hz)]
        self._environment = {
            **os.environ,
            **(environment or {}),
            "PYTHONPATH": _python_path(environment or {}),
        }

    def __enter__(self) -> "Sampler":
        """Starts the process; returns when it took its first sample, or said why it takes none."""
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=self._environment,
        )
        self._listener = threading.Thread(target=self._listen, name="sampler", daemon=True)
        self._listener.start()
        if not self._started.wait(_PATIENCE_S):
            self._miss(f"the sampler said nothing within {_PATIENCE_S:g} s")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the process; returns when it is gone."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE_S)
        self._process.kill()
        self._process.wait()
        self._listener.join(_PATIENCE_S)
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def pid(self) -> int:
        """Process id of the sampling process."""
        return self._process.pid

    def between(self, start_s: float, end_s: float) -> tuple[Sample, ...]:
        """The samples of a stretch of time, by `time.monotonic`."""
        return tuple(each for each in self.samples if start_s <= each.at_s <= end_s)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            if "missing" in told:
                self.missing.clear()
                self.missing.update(told["missing"])
                continue
            sample = sample_of(told)
            self.samples.append(sample)
            self._started.set()
            if self._on_sample is not None:
                self._on_sample(sample)
        if not self.samples and not self.missing:
            self._miss(
                f"the sampler ended with code {self._process.wait()} before its first sample"
            )
        self._started.set()

    def _miss(self, reason: str) -> None:
        self.missing.update(dict.fromkeys(FIGURES, reason))


def sample_of(told: Mapping[str, Any]) -> Sample:
    """A sample from its JSON."""
    throttled = told.get("throttled")
    return Sample(**{**told, "throttled": None if throttled is None else tuple(throttled)})


def watch(source: Source, hz: float, out: TextIO, wait: Callable[[float], bool]) -> None:
    """Writes samples until `wait` says that it is over.

    Args:
        source: Is read at a steady rate: a late sample does not move those after it.
        hz: Samples a second.
        out: Takes a line of JSON a sample, and before it one of what is missing where that changed.
        wait: Waits so many seconds at most, and answers whether the parent has ended.
    """
    told: dict[str, str] | None = None
    due = time.monotonic()
    while True:
        sample = source.read()
        if source.missing != told:
            told = dict(source.missing)
            _write({"missing": told}, out)
        _write(asdict(sample), out)
        due = max(due + 1 / hz, time.monotonic())
        if wait(max(0.0, due - time.monotonic())):
            return


def main(arguments: list[str]) -> None:
    """Samples until standard input closes."""
    name, target, pid, hz = arguments
    try:
        source = open_source(name, target, int(pid))
    except AttnscopeError as error:
        _write({"missing": dict.fromkeys(FIGURES, str(error))}, sys.stdout)
        return
    # The parent may be gone before it closed the pipe, or end while a line is on its way.
    with suppress(BrokenPipeError, KeyboardInterrupt):
        watch(source, float(hz), sys.stdout, _parent_ended)


def _parent_ended(seconds: float) -> bool:
    readable, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(readable)


def _write(told: object, out: TextIO) -> None:
    out.write(json.dumps(told) + "\n")
    out.flush()


def _python_path(environment: Mapping[str, str]) -> str:
    """The checkout (or site-packages) that holds `attnscope`, before whatever was given."""
    root = Path(__file__).absolute().parents[2]
    given = environment.get("PYTHONPATH") or os.environ.get("PYTHONPATH")
    return os.pathsep.join([str(root), *filter(None, [given])])


if __name__ == "__main__":
    main(sys.argv[1:])
