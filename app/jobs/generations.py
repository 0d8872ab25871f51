"""What a generation leaves in the data folder: what was asked, of which model, each step as it came, and its end.

One folder a generation, by an unguessable id. `steps.jsonl` is only appended to, and read on from a position.
"""

import json
import re
from pathlib import Path
from typing import Any

from attnscope.kernels.errors import JobMissing

_ID = re.compile(r"[0-9a-f]{32}")
_MOST_BYTES = 512 * 1024  # of one answer


class GenerationFolder:
    """The files of one generation.

    Args:
        root: Where the generations of this server lie.
        generation: The id.

    Raises:
        JobMissing: That cannot be a generation's id.
    """

    def __init__(self, root: Path, generation: str) -> None:
        if not _ID.fullmatch(generation):
            raise JobMissing("That is not the id of a generation.", "Generate to make one.")
        self.path = root / generation
        self._asked = self.path / "asked.json"
        self._facts = self.path / "facts.json"
        self._steps = self.path / "steps.jsonl"
        self._end = self.path / "end.json"

    def begin(self, arguments: dict[str, Any], facts: dict[str, Any]) -> None:
        """Write down what was asked, and of which model; nothing was said yet."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._end.unlink(missing_ok=True)
        self._steps.write_text("", encoding="utf-8")
        self._facts.write_text(json.dumps(facts), encoding="utf-8")
        # Last: a generation whose folder holds this holds the others.
        self._asked.write_text(json.dumps(arguments), encoding="utf-8")

    def add(self, step: dict[str, Any]) -> None:
        """Write a step down."""
        with self._steps.open("a", encoding="utf-8") as file:
            file.write(json.dumps(step, allow_nan=False) + "\n")

    def end(self, how: dict[str, Any]) -> None:
        """Write down how it ended, whole or not at all."""
        unfinished = self._end.with_suffix(".part")
        unfinished.write_text(json.dumps(how), encoding="utf-8")
        unfinished.replace(self._end)

    @property
    def is_begun(self) -> bool:
        """Whether anything was written down."""
        return self._asked.exists()

    def asked(self) -> dict[str, Any]:
        """The arguments of the job.

        Raises:
            JobMissing: No such generation was begun here.
        """
        if not self.is_begun:
            raise JobMissing("This generation is not on this server.", "Generate again.")
        return json.loads(self._asked.read_text(encoding="utf-8"))

    def facts(self) -> dict[str, Any]:
        """Which model, what it reads, and what its cache will hold; see `generation_work`."""
        return json.loads(self._facts.read_text(encoding="utf-8"))

    def ended(self) -> dict[str, Any] | None:
        """How it ended; None while it goes on, and where its process died."""
        return json.loads(self._end.read_text(encoding="utf-8")) if self._end.exists() else None

    def steps(self, after: int = 0, most: int = _MOST_BYTES) -> tuple[list[dict[str, Any]], int]:
        """The steps after a position of their file, and the position to go on from.

        Args:
            after: Where the last answer ended; 0 for the start.
            most: Bytes that are read at once; −1 for all.
        """
        with self._steps.open("rb") as file:
            file.seek(after)
            whole = file.read(most).rpartition(b"\n")[0]
        return [json.loads(line) for line in whole.splitlines()], after + len(whole) + bool(whole)
