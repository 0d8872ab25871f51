"""Captures in the data folder, one folder each: they outlive the worker that made them.

A capture is opened memory-mapped, so an open one costs the machine only what is being read. The least used are closed
over the memory limit and deleted over the disk limit.
"""

import hmac
import json
import os
import re
import secrets
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import time
from typing import Protocol

from attnscope.kernels.errors import CaptureMissing

_ID = re.compile(r"[0-9a-f]{32}")


class Saved(Protocol):
    """What the shelf needs of a capture."""

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        ...

    def save(self, folder: Path) -> object:
        """Write it into a folder."""
        ...


class CaptureShelf:
    """The captures of one data folder; any thread, and any number of processes, may use it.

    Args:
        folder: Holds one folder a capture.
        load: Opens a capture's folder.
        memory_bytes: Limit of what is open at once in this process; the newest always stays.
        disk_bytes: Limit of the folder; the newest always stays.
    """

    def __init__(
        self, folder: Path, load: Callable[[Path], Saved], *, memory_bytes: int, disk_bytes: int
    ) -> None:
        self._folder = folder
        self._load = load
        self._memory_bytes = memory_bytes
        self._disk_bytes = disk_bytes
        self._lock = threading.RLock()
        self._open: OrderedDict[str, Saved] = OrderedDict()

    def id_of(self, origin: object) -> str:
        """The id of the capture that comes of this origin (JSON): the same each time, and unguessable from outside."""
        canonical = json.dumps(origin, sort_keys=True).encode()
        return hmac.new(self._secret(), canonical, "sha256").hexdigest()[:32]

    def holds(self, capture_id: str) -> bool:
        """Whether that capture is kept and can be read; what cannot, damaged or of another version, is removed."""
        try:
            self.get(capture_id)
        except CaptureMissing:
            return False
        return True

    def add(self, capture_id: str, capture: Saved) -> None:
        """Save a capture; it is complete in the folder, or not there at all."""
        unfinished = self._folder / f"{capture_id}.{secrets.token_hex(4)}.part"
        unfinished.mkdir(parents=True)
        try:
            capture.save(unfinished)
            with suppress(OSError):  # another process was quicker
                unfinished.rename(self._folder / capture_id)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        self._make_room(capture_id)

    def get(self, capture_id: str) -> Saved:
        """The capture of that id.

        Raises:
            CaptureMissing: It was deleted to make room, or never made.
        """
        folder = self.folder(capture_id)
        with self._lock:
            if capture_id not in self._open:
                self._open[capture_id] = self._loaded(folder)
                self._close_least_used()
            self._open.move_to_end(capture_id)
            capture = self._open[capture_id]
        with suppress(FileNotFoundError):  # another process just made room
            if time() - folder.stat().st_mtime > 30:
                os.utime(folder)
        return capture

    def _loaded(self, folder: Path) -> Saved:
        try:
            return self._load(folder)
        except CaptureMissing as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise CaptureMissing(
                "This capture cannot be read any more: it is damaged, or an older version wrote it.",
                "Run the prompt again.",
            ) from error

    def folder(self, capture_id: str) -> Path:
        """Where a capture lies; raises CaptureMissing."""
        folder = self._folder / capture_id
        if not _ID.fullmatch(capture_id) or not folder.is_dir():
            with self._lock:
                self._open.pop(capture_id, None)
            raise CaptureMissing(
                "This capture is no longer kept: it made room for newer ones.",
                "Run the prompt again.",
            )
        return folder

    def _secret(self) -> bytes:
        path = self._folder / "secret"
        if not path.is_file():
            self._folder.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_name(f"secret.{secrets.token_hex(4)}")
            unfinished.touch(0o600)
            unfinished.write_bytes(secrets.token_bytes(32))
            unfinished.rename(path)
        return path.read_bytes()

    def _close_least_used(self) -> None:
        while (
            len(self._open) > 1 and sum(c.nbytes for c in self._open.values()) > self._memory_bytes
        ):
            self._open.popitem(last=False)

    def _make_room(self, newest: str) -> None:
        kept = [
            (*_size_and_use(folder), folder)
            for folder in self._folder.iterdir()
            if _ID.fullmatch(folder.name)
        ]
        total = sum(size for size, _, _ in kept)
        for size, _, folder in sorted(kept, key=lambda one: one[1]):
            if total <= self._disk_bytes:
                return
            if folder.name != newest:
                shutil.rmtree(folder, ignore_errors=True)
                total -= size


def _size_and_use(folder: Path) -> tuple[int, float]:
    """Bytes of a capture's files and when it was last used; nothing of one that another process removes meanwhile."""
    try:
        return sum(file.stat().st_size for file in folder.iterdir()), folder.stat().st_mtime
    except FileNotFoundError:
        return 0, 0.0
