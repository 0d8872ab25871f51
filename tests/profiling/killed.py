"""A process that adds records until it is killed without warning, and what it had acknowledged by then."""

import os
import signal
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

from attnscope.profiling.store import Store
from tests.profiling.records import RECORD


def acknowledged(history: Path, *, after_s: float, seed: int) -> list[str]:
    """Kills a writer some time after its first record, and returns the ids it had reported as added.

    Args:
        history: The SQLite file.
        after_s: From the first acknowledgement to SIGKILL.
        seed: Makes its records different from those of other trials.
    """
    read, write = os.pipe()
    writer = os.fork()
    if writer == 0:
        os.close(read)
        _write_for_ever(history, write, seed)
    os.close(write)
    with os.fdopen(read) as told:
        ids = [told.readline()]
        time.sleep(after_s)
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        ids += told.readlines()
    return [line.strip() for line in ids if line.endswith("\n")]


def integrity(history: Path) -> str:
    """What SQLite's own check says of the file: "ok", or what is wrong."""
    with sqlite3.connect(history) as connection:
        found = connection.execute("PRAGMA integrity_check").fetchone()[0]
    connection.close()
    return found


def _write_for_ever(history: Path, told: int, seed: int) -> None:
    try:
        with Store.open(history) as store:
            number = seed * 1_000_000
            while True:
                record = replace(RECORD, seed=number)
                store.add(record)
                os.write(told, f"{record.id}\n".encode())
                number += 1
    finally:
        # Of a forked process nothing else may run: it would be the tests' own end.
        os._exit(1)
