"""What was measured of each mechanism, one JSON line a measurement, in the data folder."""

import json
import re
from pathlib import Path
from typing import Any

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
            lines.write(json.dumps(record) + "\n")

    def records(self, mechanism: str) -> list[Record]:
        """The latest measurements, the newest last; a line that was cut off by a kill is left out."""
        file = self._file(mechanism)
        if not file.exists():
            return []
        whole = file.read_text(encoding="utf-8").rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()[-_MOST_SHOWN:] if line]

    def _file(self, mechanism: str) -> Path:
        if not _KEY.fullmatch(mechanism):
            raise InvalidCall(f"There is no mechanism {mechanism[:40]!r}.")
        return self._root / f"{mechanism}.jsonl"
