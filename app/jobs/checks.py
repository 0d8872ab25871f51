"""What a check of backends leaves in the data folder: what was asked, of which model, and each result as it came.

One folder a check, by an unguessable id. A later line about a backend replaces the earlier one: its latency comes last.
"""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnscope.app.jobs.kept_answers import keep, kept
from attnscope.kernels.errors import JobMissing

if TYPE_CHECKING:
    from attnscope.profiling.backend_check import BackendResult

_ID = re.compile(r"[0-9a-f]{32}")


class CheckFolder:
    """The files of one check.

    Args:
        root: Where the checks of this server lie.
        check: The id.

    Raises:
        JobMissing: That cannot be a check's id.
    """

    def __init__(self, root: Path, check: str) -> None:
        if not _ID.fullmatch(check):
            raise JobMissing("That is not the id of a check.", "Check the backends to make one.")
        self.path = root / check
        self._asked = self.path / "asked.json"
        self._facts = self.path / "facts.json"
        self._results = self.path / "results.jsonl"

    def begin(self, arguments: dict[str, Any], facts: dict[str, Any]) -> None:
        """Write down what was asked, and of which model on what machine; nothing was found yet."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._results.write_text("", encoding="utf-8")
        self._facts.write_text(json.dumps(facts), encoding="utf-8")
        # Last: a check whose folder holds this holds the others, and in its form.
        keep(self._asked, arguments)

    def add(self, result: "BackendResult") -> None:
        """Write a result down."""
        from attnscope.profiling.json_data import to_data

        with self._results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(to_data(result), allow_nan=False) + "\n")

    def asked(self) -> dict[str, Any]:
        """The arguments of the job.

        Raises:
            JobMissing: No such check was begun here, or one whose files have another form.
        """
        asked = kept(self._asked)
        if asked is None:
            raise JobMissing("This check is not on this server.", "Check the backends again.")
        return asked

    def facts(self) -> dict[str, Any]:
        """Which model, on what, and its prompt's tokens; see `check_work`."""
        return json.loads(self._facts.read_text(encoding="utf-8"))

    def results(self) -> "tuple[BackendResult, ...]":
        """The last result of each backend, in the order in which they came first."""
        from attnscope.profiling.backend_check import BackendResult
        from attnscope.profiling.json_data import from_data

        whole = self._results.read_text(encoding="utf-8").rpartition("\n")[0]
        told = (json.loads(line) for line in whole.splitlines())
        found = {each["name"]: each for each in told}
        return tuple(from_data(BackendResult, each) for each in found.values())
