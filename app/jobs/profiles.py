"""What a profile leaves in the data folder: its plan, its records, its traces, and what was seen live.

One folder a profile, by an unguessable id. `records.jsonl` is the sweep's own file; `live.jsonl` is a stream of
events that is only appended to, and read on from a position; `history.jsonl` says which records the history holds,
and `cache.json` how the cache was said to grow.
"""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

from attnscope.kernels.errors import JobMissing

if TYPE_CHECKING:
    from attnscope.profiling.record import Cell

Event = dict[str, Any]

SHIPPED = Path(__file__).resolve().parents[2] / "assets" / "reference_runs"
"""Profiles that ship lie here as those of a server lie in its data folder."""

_ID = re.compile(r"[0-9a-f]{32}")
_MOST_BYTES = 256 * 1024  # of one answer


class ProfileFolder:
    """The files of one profile.

    Args:
        root: Where the profiles of this server lie.
        profile: The id.

    Raises:
        JobMissing: That cannot be a profile's id.
    """

    def __init__(self, root: Path, profile: str) -> None:
        if not _ID.fullmatch(profile):
            raise JobMissing("That is not a profile's id.", "Start a profile to make one.")
        self.path = root / profile
        self.records = self.path / "records.jsonl"
        self.live = self.path / "live.jsonl"
        self.traces = self.path / "traces"
        self._plan = self.path / "plan.json"
        self._history = self.path / "history.jsonl"
        self._cache = self.path / "cache.json"

    @property
    def ships(self) -> bool:
        """Whether it came with the project."""
        return self.path.parent == SHIPPED

    def trace(self, cell: "Cell") -> Path:
        """Where the trace of a cell lies, where one was kept."""
        named = (cell.backend, cell.phase, f"{cell.batch}x{cell.length}", cell.dtype)
        return self.traces / f"{'_'.join(named)}.json.gz"

    def snapshot(self, cell: "Cell") -> Path:
        """Where PyTorch's own memory snapshot of a cell lies, where one was kept."""
        return self.trace(cell).with_suffix("").with_suffix(".pickle")

    def begin(self, arguments: dict[str, Any]) -> None:
        """Write the plan down, once: going on with a profile changes nothing of it."""
        self.path.mkdir(parents=True, exist_ok=True)
        if not self._plan.exists():
            self._plan.write_text(json.dumps(arguments), encoding="utf-8")

    def foretell(self, cache: dict[str, Any]) -> None:
        """Write down how the cache will grow."""
        self._cache.write_text(json.dumps(cache), encoding="utf-8")

    def cache(self) -> dict[str, Any] | None:
        """How the cache was said to grow; None of a model that keeps none."""
        return json.loads(self._cache.read_text(encoding="utf-8")) if self._cache.exists() else None

    def plan(self) -> dict[str, Any]:
        """The arguments of the job.

        Raises:
            JobMissing: No such profile was begun here.
        """
        if not self._plan.exists():
            raise JobMissing("This profile is not on this server.", "Start it again.")
        return json.loads(self._plan.read_text(encoding="utf-8"))

    def keep(self, record: str) -> None:
        """Write down that the history holds a record."""
        self._append({"kept": record})

    def tell(self, sentence: str) -> None:
        """Write down what is to be known of the history, once."""
        if sentence not in self.history()[1]:
            self._append({"told": sentence})

    def history(self) -> tuple[frozenset[str], tuple[str, ...]]:
        """Ids of the records that the history holds, and what is to be known of it."""
        if not self._history.exists():
            return frozenset(), ()
        whole = self._history.read_text(encoding="utf-8").rpartition("\n")[0]
        lines = [json.loads(line) for line in whole.splitlines()]
        kept = frozenset(line["kept"] for line in lines if "kept" in line)
        return kept, tuple(line["told"] for line in lines if "told" in line)

    def events(self, after: int) -> tuple[list[Event], int]:
        """What happened after a position of the stream, and the position to go on from."""
        if not self.live.exists():
            return [], 0
        with self.live.open("rb") as file:
            file.seek(after)
            whole = file.read(_MOST_BYTES).rpartition(b"\n")[0]
        return [json.loads(line) for line in whole.splitlines()], after + len(whole) + bool(whole)

    def _append(self, line: dict[str, str]) -> None:
        with self._history.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def latest(root: Path, owner: str) -> str | None:
    """The owner's profile that got its last record last; None where there is none."""
    newest = sorted(_measured(root), reverse=True)
    for _, folder in newest:
        with suppress(JobMissing):
            if folder.plan().get("owner") == owner:
                return folder.path.name
    return None


def folder_of(root: Path, profile: str) -> ProfileFolder:
    """The folder of a profile of this server, or of one that ships.

    Raises:
        JobMissing: That cannot be a profile's id.
    """
    own, shipped = ProfileFolder(root, profile), ProfileFolder(SHIPPED, profile)
    return shipped if shipped.path.exists() else own


def shipped() -> str | None:
    """The id of the profile that a first visit sees; None where none ships."""
    return max((folder.path.name for _, folder in _measured(SHIPPED)), default=None)


def _measured(root: Path) -> Iterator[tuple[float, ProfileFolder]]:
    for file in root.glob("*/records.jsonl"):
        if _ID.fullmatch(file.parent.name):
            yield file.stat().st_mtime, ProfileFolder(root, file.parent.name)


class Stream:
    """Writes events; what comes often is thinned. Any thread may tell.

    Args:
        path: The file, appended to.
        clock: Unix time, seconds.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: list[str] = []
        self._told: dict[str, float] = {}

    def tell(self, kind: str, **values: Any) -> None:
        """Write an event down, and those that wait."""
        self.note(kind, every_s=0.0, **values)
        self.flush()

    def note(self, kind: str, *, every_s: float, **values: Any) -> None:
        """Keep an event until the next `flush`, unless one of its kind came a moment ago: no file is touched."""
        now = self._clock()
        with self._lock:
            if now - self._told.get(kind, 0.0) < every_s:
                return
            self._told[kind] = now
            self._waiting.append(self._line(kind, values))

    def flush(self) -> None:
        """Write down what waits."""
        with self._lock:
            text, self._waiting = "".join(self._waiting), []
            if text:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(text)

    def _line(self, kind: str, values: dict[str, Any]) -> str:
        return json.dumps({"kind": kind, "at": round(self._clock(), 3), **values}) + "\n"
