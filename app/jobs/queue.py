"""The queue of jobs, in one SQLite file: it outlives the server, and a reload of the page finds its job again.

Plain sqlite3: two tables and a dozen statements, and no other database will ever hold a machine's own queue.
"""

import fcntl
import json
import secrets
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import IO, Any

from attnscope.app.jobs import reasons
from attnscope.app.jobs.engine import Event, JobStatus, State
from attnscope.kernels.errors import EngineUnavailable, JobMissing, QueueFull

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, kind TEXT NOT NULL, arguments TEXT NOT NULL,
    owner TEXT NOT NULL, device TEXT NOT NULL, state TEXT NOT NULL, progress REAL NOT NULL DEFAULT 0,
    step TEXT NOT NULL DEFAULT '', rate REAL, rate_unit TEXT NOT NULL DEFAULT 'share', eta_s REAL,
    reason TEXT NOT NULL DEFAULT '', remedy TEXT NOT NULL DEFAULT '', reference TEXT NOT NULL DEFAULT '', result TEXT,
    created REAL NOT NULL, started REAL, ended REAL);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, number);
CREATE TABLE IF NOT EXISTS events (
    job_id TEXT NOT NULL, number INTEGER NOT NULL, at REAL NOT NULL, text TEXT NOT NULL, PRIMARY KEY (job_id, number));
"""
_MOST_QUEUES = 16
_KEPT = 2000  # jobs whose history is kept; older ones go when the server starts


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A job that a worker is about to run."""

    id: str
    kind: str
    arguments: dict[str, Any]


class JobQueue:
    """First in, first out, for each device; every method may be called from any thread.

    Args:
        path: The SQLite file; made when missing.
        per_owner: Jobs that one owner may have waiting or running.
        clock: Unix time, seconds.
    """

    def __init__(
        self, path: Path, *, per_owner: int = 8, clock: Callable[[], float] = time
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._per_owner = per_owner
        self._clock = clock
        self._lock = threading.RLock()
        self._closed = False
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=5)
        self._db.row_factory = sqlite3.Row
        # WAL and NORMAL: a killed server loses nothing; only a power cut may lose the last moment.
        self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;" + _SCHEMA)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._closed = True
            self._db.close()

    def add(self, kind: str, arguments: dict[str, Any], *, owner: str, device: str) -> str:
        """Append a job and return its id; raises QueueFull."""
        with self._lock:
            waiting = self._one(
                "SELECT count(*) FROM jobs WHERE owner=? AND state IN ('queued','running')", owner
            )[0]
            if waiting >= self._per_owner:
                raise QueueFull(
                    f"You already have {waiting} jobs waiting or running, and {self._per_owner} is the limit.",
                    "Wait for one to end, or cancel one.",
                )
            job_id = secrets.token_hex(16)
            self._db.execute(
                "INSERT INTO jobs (id, kind, arguments, owner, device, state, created) VALUES (?,?,?,?,?,'queued',?)",
                (job_id, kind, _canonical(arguments), owner, device, self._clock()),
            )
            self.note(job_id, "Queued.")
            return job_id

    def under_way(self, kind: str, arguments: dict[str, Any], *, owner: str) -> str | None:
        """The owner's job that waits or runs with exactly these arguments, or None."""
        with self._lock:
            row = self._db.execute(
                "SELECT id FROM jobs WHERE kind=? AND arguments=? AND owner=?"
                " AND state IN ('queued','running') ORDER BY number LIMIT 1",
                (kind, _canonical(arguments), owner),
            ).fetchone()
        return None if row is None else row["id"]

    def claim(self, device: str) -> Claimed | None:
        """Mark the oldest waiting job of this device, or of any (`auto`), as running, and return it."""
        with self._lock:
            row = self._db.execute(
                "SELECT * FROM jobs WHERE state='queued' AND device IN (?, 'auto') ORDER BY number LIMIT 1",
                (device,),
            ).fetchone()
            if row is None:
                return None
            self._db.execute(
                "UPDATE jobs SET state='running', started=? WHERE id=?", (self._clock(), row["id"])
            )
            self.note(row["id"], "Started.")
            return Claimed(id=row["id"], kind=row["kind"], arguments=json.loads(row["arguments"]))

    def put_back(self, job_id: str, why: str) -> None:
        """Let a running job wait again, at the place that it had."""
        with self._lock:
            self._db.execute(
                "UPDATE jobs SET state='queued' WHERE id=? AND state='running'", (job_id,)
            )
            self.note(job_id, why)

    def report(
        self,
        job_id: str,
        progress: float,
        step: str,
        *,
        rate: float | None,
        rate_unit: str,
        eta_s: float | None,
    ) -> None:
        """Take down the progress of a running job; nothing happens when it is over."""
        with self._lock:
            before = self._row(job_id)
            if before["state"] != "running":
                return
            self._db.execute(
                "UPDATE jobs SET progress=?, step=?, rate=?, rate_unit=?, eta_s=? WHERE id=?",
                (progress, step, rate, rate_unit, eta_s, job_id),
            )
            if step and step != before["step"]:
                self.note(job_id, step)

    def finish(
        self,
        job_id: str,
        state: State,
        *,
        result: dict[str, Any] | None = None,
        reason: str = "",
        remedy: str = "",
        reference: str = "",
    ) -> bool:
        """End a job once; returns False when it was over already, and then changes nothing."""
        with self._lock:
            if self._row(job_id)["state"] in ("done", "failed", "cancelled"):
                return False
            self._db.execute(
                "UPDATE jobs SET state=?, result=?, reason=?, remedy=?, reference=?, ended=?, eta_s=NULL,"
                " progress=CASE ? WHEN 'done' THEN 1.0 ELSE progress END WHERE id=?",
                (
                    state,
                    json.dumps(result),
                    reason,
                    remedy,
                    reference,
                    self._clock(),
                    state,
                    job_id,
                ),
            )
            self.note(job_id, {"done": "Done.", "cancelled": "Cancelled."}.get(state, reason))
            return True

    def note(self, job_id: str, text: str) -> None:
        """Append an event to a job's history."""
        with self._lock:
            self._db.execute(
                "INSERT INTO events SELECT ?, coalesce(max(number), 0) + 1, ?, ? FROM events WHERE job_id=?",
                (job_id, self._clock(), text, job_id),
            )

    def status(self, job_id: str) -> JobStatus:
        """The job's snapshot; raises JobMissing, and EngineUnavailable once the queue is closed."""
        with self._lock:
            if self._closed:
                raise EngineUnavailable("The server is stopping.", "Try again once it is back.")
            row = self._row(job_id)
            ahead = 0
            if row["state"] == "queued":
                ahead = self._one(
                    "SELECT count(*) FROM jobs WHERE state IN ('queued','running') AND number<?"
                    " AND (device=? OR device='auto' OR ?='auto')",
                    row["number"],
                    row["device"],
                    row["device"],
                )[0]
        return JobStatus(
            id=row["id"],
            kind=row["kind"],
            state=row["state"],
            progress=row["progress"],
            step=row["step"],
            rate=row["rate"],
            rate_unit=row["rate_unit"],
            eta_s=row["eta_s"],
            reason=row["reason"],
            remedy=row["remedy"],
            reference=row["reference"],
            queued_ahead=ahead,
            created=row["created"],
            started=row["started"],
            ended=row["ended"],
        )

    def events(self, job_id: str, after: int = 0) -> list[Event]:
        """The job's events with a number above `after`; raises JobMissing."""
        with self._lock:
            self._row(job_id)
            rows = self._db.execute(
                "SELECT number, at, text FROM events WHERE job_id=? AND number>? ORDER BY number",
                (job_id, after),
            ).fetchall()
        return [Event(number=row["number"], at=row["at"], text=row["text"]) for row in rows]

    def result(self, job_id: str) -> dict[str, Any]:
        """What a done job returned; raises JobMissing."""
        with self._lock:
            row = self._row(job_id)
        if row["state"] != "done":
            raise JobMissing(f"Job {job_id} has no result: it is {row['state']}.")
        return json.loads(row["result"])

    def named(self) -> set[str]:
        """What the jobs that wait or run name in their arguments: ids of profiles and checks among it."""
        with self._lock:
            rows = self._db.execute(
                "SELECT arguments FROM jobs WHERE state IN ('queued','running')"
            ).fetchall()
        found = (value for row in rows for value in json.loads(row["arguments"]).values())
        return {value for value in found if isinstance(value, str)}

    def waiting(self) -> int:
        """Jobs queued and not yet started."""
        with self._lock:
            return self._one("SELECT count(*) FROM jobs WHERE state='queued'")[0]

    def recover(self, reason: str, remedy: str) -> list[str]:
        """After a restart: jobs that were running are marked failed, queued ones stay. Returns the failed ids."""
        with self._lock:
            rows = self._db.execute(
                "SELECT id FROM jobs WHERE state='running' ORDER BY number"
            ).fetchall()
            for row in rows:
                self.finish(
                    row["id"],
                    "failed",
                    reason=reason,
                    remedy=remedy,
                    reference=reasons.new_reference(),
                )
            self._db.execute(
                "DELETE FROM jobs WHERE state NOT IN ('queued','running')"
                " AND number <= (SELECT max(number) FROM jobs) - ?",
                (_KEPT,),
            )
            self._db.execute("DELETE FROM events WHERE job_id NOT IN (SELECT id FROM jobs)")
        return [row["id"] for row in rows]

    def _row(self, job_id: str) -> sqlite3.Row:
        row = self._db.execute("SELECT * FROM jobs WHERE id=?", (job_id,)).fetchone()
        if row is None:
            raise JobMissing(
                f"No job with the id {job_id[:40]!r} is known.",
                "It may be from before a clean-up; run it again.",
            )
        return row

    def _one(self, statement: str, *values: object) -> sqlite3.Row:
        return self._db.execute(statement, values).fetchone()


def _canonical(arguments: dict[str, Any]) -> str:
    return json.dumps(arguments, sort_keys=True)


def free_slot(data: Path) -> tuple[int, IO[str]]:
    """The number of the first queue of a data folder that no other running server holds, and the lock that keeps it.

    Raises:
        EngineUnavailable: Servers hold all of them.
    """
    data.mkdir(parents=True, exist_ok=True)
    for number in range(1, _MOST_QUEUES + 1):
        lock = (data / f"queue-{number}.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        return number, lock
    raise EngineUnavailable(
        f"{_MOST_QUEUES} servers already use the data folder {data}.",
        "Stop one, or set ATTNSCOPE_DATA.",
    )
