"""Files named by a fingerprint of what they hold, so that a link finds it for as long as somebody uses it."""

import os
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

_FINGERPRINT = re.compile(r"[0-9a-f]{32}")


class KeptFiles:
    """A folder of such files; those that hold the same are one.

    Attributes:
        suffix: Of their names.

    Args:
        folder: Where they are kept; made when first needed.
        days: How long after their last use.
        nbytes: The folder's size limit; the oldest go first.
        clock: Seconds since the epoch.
    """

    suffix: ClassVar[str] = ""

    def __init__(
        self,
        folder: Path,
        *,
        days: int = 30,
        nbytes: int = 256 * 2**20,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder = folder
        self.days = days
        self.nbytes = nbytes
        self._clock = clock

    def _write(self, name: str, data: bytes) -> None:
        """Keep what a file of this fingerprint holds, and make room for it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.folder / f"{name}.{secrets.token_hex(4)}.part"
        unfinished.write_bytes(data)
        path = unfinished.replace(self._path(name))
        self._use(path)
        self._prune(path)

    def _read(self, name: str) -> bytes | None:
        """What the file of a fingerprint holds; None where there is none, or it is no fingerprint."""
        path = self._path(name)
        if not _FINGERPRINT.fullmatch(name) or not path.is_file():
            return None
        self._use(path)
        return path.read_bytes()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{self.suffix}"

    def _use(self, path: Path) -> None:
        os.utime(path, (self._clock(), self._clock()))

    def _prune(self, keep: Path) -> None:
        files = sorted(
            (path.stat().st_mtime, path.stat().st_size, path)
            for path in self.folder.iterdir()
            if _FINGERPRINT.fullmatch(path.name.removesuffix(self.suffix)) and path != keep
        )
        excess = sum(size for _, size, _ in files) + keep.stat().st_size - self.nbytes
        oldest = self._clock() - self.days * 86_400
        for modified, size, path in files:
            if modified < oldest or excess > 0:
                path.unlink(missing_ok=True)
                excess -= size
