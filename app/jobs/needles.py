"""What a run of needles leaves in the data folder: what was asked, of which model, and each trial as it came.

One folder a run, named by what was asked: whoever asks the same finds it, and goes on where it stopped.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnscope.kernels.errors import JobMissing

if TYPE_CHECKING:
    from attnscope.models.needle import Place

_ID = re.compile(r"[0-9a-f]{32}")
_SAME = ("model", "changed")  # of the facts: what decides whether earlier trials are of this model

Told = dict[str, Any]


class NeedleFolder:
    """The files of one run.

    Args:
        root: Where the runs of this server lie.
        run: The id.

    Raises:
        JobMissing: That cannot be a run's id.
    """

    def __init__(self, root: Path, run: str) -> None:
        if not _ID.fullmatch(run):
            raise JobMissing("That is not the id of a run of needles.", "Run the grid to make one.")
        self.path = root / run
        self._begun = self.path / "begun.json"
        self._trials = self.path / "trials.jsonl"

    def begin(self, asked: Told, facts: Told) -> None:
        """Write down what was asked, and of which model; trials of the same model stay."""
        self.path.mkdir(parents=True, exist_ok=True)
        if self._begun.exists():
            before = self.begun()["facts"]
            if all(before[name] == facts[name] for name in _SAME):
                return
        self._trials.write_text("", encoding="utf-8")
        # Last: a run whose folder holds this holds the other.
        self._begun.write_text(json.dumps({"asked": asked, "facts": facts}), encoding="utf-8")

    def begun(self) -> dict[str, Told]:
        """The arguments of the job under `asked`, and under `facts` what `needle_work` says of the model.

        Raises:
            JobMissing: No such run was begun here.
        """
        if not self._begun.exists():
            raise JobMissing("This run is not on this server.", "Run the grid again.")
        return json.loads(self._begun.read_text(encoding="utf-8"))

    def add(self, described: Mapping[str, Any]) -> None:
        """Write a trial down, as `needle_work.described` tells it."""
        with self._trials.open("a", encoding="utf-8") as file:
            file.write(json.dumps(described, allow_nan=False) + "\n")

    def trials(self) -> "dict[Place, Told]":
        """The trials there are, by length, depth and seed; a line that is being written is left out."""
        whole = self._trials.read_text(encoding="utf-8").rpartition("\n")[0]
        told = (json.loads(line) for line in whole.splitlines())
        return {(each["length"], each["depth"], each["seed"]): each for each in told}
