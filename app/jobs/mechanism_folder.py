"""In the data folder: what was measured of each mechanism, a JSON line each, and what was found of models."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attnscope.app.jobs.kept_answers import keep, kept, read, written
from attnscope.kernels.errors import InvalidCall

Record = dict[str, Any]

_KEY = re.compile(r"[a-z][a-z-]{0,40}")
_MOST_SHOWN = 20


class MechanismFolder:
    """The measurements of this server.

    Args:
        data: The server's data folder.
    """

    def __init__(self, data: Path) -> None:
        self._root = data / "mechanisms"

    def add(self, mechanism: str, record: Record) -> None:
        """Write a measurement down."""
        file = self._file(mechanism)
        self._root.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as lines:
            lines.write(f"{written(record)}\n")

    def records(self, mechanism: str) -> list[Record]:
        """The latest measurements, the newest last; what was cut off by a kill, or has another form, is left out."""
        file = self._file(mechanism)
        if not file.exists():
            return []
        whole = file.read_text(encoding="utf-8").rpartition("\n")[0]
        found = (read(line) for line in whole.splitlines()[-_MOST_SHOWN:])
        return [record for record in found if record is not None]

    def _file(self, mechanism: str) -> Path:
        if not _KEY.fullmatch(mechanism):
            raise InvalidCall(f"There is no mechanism {mechanism[:40]!r}.")
        return self._root / f"{mechanism}.jsonl"


class Findings:
    """What was found of models, a JSON file a question: the same question finds it again.

    Args:
        data: The server's data folder.
        kind: What is found; of this house, not of a visitor.
    """

    def __init__(self, data: Path, kind: str) -> None:
        self._root = data / "mechanisms" / kind

    def keep(self, asked: Mapping[str, Any], found: Record) -> None:
        """Write an answer down; it replaces an older one."""
        self._root.mkdir(parents=True, exist_ok=True)
        keep(self._file(asked), found)

    def find(self, asked: Mapping[str, Any]) -> Record | None:
        """The answer to a question; None where nobody asked it yet."""
        return kept(self._file(asked))

    def _file(self, asked: Mapping[str, Any]) -> Path:
        told = json.dumps(dict(asked), sort_keys=True).encode()
        return self._root / f"{hashlib.sha256(told).hexdigest()[:32]}.json"
