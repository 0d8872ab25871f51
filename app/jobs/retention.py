"""What lies in the data folder, and for how long: what nobody has used for `keep_days` goes, at start and once a day.

The history of runs, the queue, the ceilings of devices and the measurements of mechanisms stay.
"""

import json
import logging
import re
import shutil
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import time

from attnscope.app.jobs.profiles import ProfileFolder
from attnscope.app.settings import Settings
from attnscope.profiling.units import count, nbytes

log = logging.getLogger("attnscope.retention")

KINDS = (
    "captures",
    "profiles",
    "checks",
    "generations",
    "needles",
    "prompts",
    "assignments",
    "matrices",
    "pictures",
)
"""Folders whose entries go; of all that lies beside them, only the size is told."""

_DAY_S = 86_400
# By a fingerprint or an id, and what was never finished: a secret lies beside the captures.
_ENTRY = re.compile(r"[0-9a-f]{32}(\..*)?|.*\.part")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One capture, profile, check, generation, prompt, matrix or picture.

    Attributes:
        path: Its folder or file.
        nbytes: Of its files.
        used: When it was last written or looked at, Unix time.
    """

    path: Path
    nbytes: int
    used: float

    @property
    def id(self) -> str:
        """As jobs name it."""
        return self.path.name.partition(".")[0]


def entries(data: Path, kind: str) -> list[Entry]:
    """What lies there of a kind, the longest unused first."""
    found = (_entry(path) for path in (data / kind).glob("*") if _ENTRY.fullmatch(path.name))
    return sorted((each for each in found if each is not None), key=lambda each: each.used)


def sizes(data: Path) -> dict[str, int]:
    """Bytes of everything in the data folder, by the folder or file that it lies in, the largest first."""
    found = {path.name: _size(path) for path in data.glob("*")}
    return dict(sorted(found.items(), key=lambda each: -each[1]))


def tidy(
    settings: Settings, busy: Collection[str] = (), *, clock: Callable[[], float] = time
) -> list[Entry]:
    """Delete what nobody has used for `keep_days`, and say what that was.

    Args:
        settings: Where the data is, and how long it stays.
        busy: Ids that jobs name which wait or run: they stay.
        clock: Unix time, seconds.
    """
    oldest = clock() - settings.keep_days * _DAY_S
    gone = []
    for kind in KINDS:
        for entry in entries(settings.data, kind):
            if entry.used >= oldest or entry.id in busy or _is_needed(kind, entry):
                continue
            _remove(entry.path)
            gone.append(entry)
    if gone:
        freed = nbytes(sum(entry.nbytes for entry in gone))
        log.info(
            "%s unused for %d days are deleted: %s.", count(len(gone)), settings.keep_days, freed
        )
    return gone


def keep_tidy(
    settings: Settings, busy: Callable[[], Collection[str]], stop: threading.Event
) -> None:
    """Tidy now and once a day until told to stop; what cannot be deleted is tried again."""
    while True:
        try:
            tidy(settings, busy())
        except OSError as error:
            log.warning("The data folder could not be tidied: %s", error)
        if stop.wait(_DAY_S):
            return


def _is_needed(kind: str, entry: Entry) -> bool:
    """Whether it is a profile with runs that the history does not hold: they are nowhere else."""
    if kind != "profiles" or entry.path.suffix or not entry.path.is_dir():
        return False
    folder = ProfileFolder(entry.path.parent, entry.id)
    return not set(_records(folder.records)) <= folder.history()[0]


def _records(path: Path) -> Iterator[str]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for line in lines:
        with suppress(ValueError, KeyError, TypeError):  # cut short while it was written
            yield json.loads(line)["id"]


def _entry(path: Path) -> Entry | None:
    """None of one that another process removes meanwhile."""
    try:
        files = [each.stat() for each in (path, *path.rglob("*"))]
    except FileNotFoundError:
        return None
    return Entry(path=path, nbytes=_size(path), used=max(each.st_mtime for each in files))


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    total = 0
    for file in files:
        with suppress(FileNotFoundError):
            total += file.stat().st_size if file.is_file() else 0
    return total


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
