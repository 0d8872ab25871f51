"""Whether the history keeps what it acknowledged when its writer is killed, a hundred times; and how fast it is.

python -m benchmarks.store
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from attnscope.profiling.store import Store
from benchmarks.results import append, spread
from tests.profiling.killed import acknowledged, integrity
from tests.profiling.records import RECORD


def killed(trials: int, folder: Path) -> dict[str, object]:
    """Kills one writer after the other on one growing history; what was lost must stay 0."""
    history = folder / "history.sqlite3"
    told: set[str] = set()
    sound = 0
    for trial in range(trials):
        pause = random.Random(trial).uniform(0, 0.2)
        told |= set(acknowledged(history, after_s=pause, seed=trial + 1))
        sound += integrity(history) == "ok"
    with Store.open(history) as store:
        kept = {row.id for row in store.find()}
    return {
        "case": "kill -9 while records are added",
        "trials": trials,
        "integrity_ok": sound,
        "acknowledged": len(told),
        "lost": len(told - kept),
        "kept_unacknowledged": len(kept - told),
    }


def timed(records: int, folder: Path) -> dict[str, object]:
    """Adding one record, opening one, and finding the newest 200."""
    with Store.open(folder / "timed.sqlite3") as store:
        several = [replace(RECORD, seed=seed) for seed in range(records)]
        adds = [_milliseconds(partial(store.add, record)) for record in several]
        gets = [_milliseconds(partial(store.get, record.id)) for record in several[:50]]
        finds = [_milliseconds(partial(store.find, limit=200)) for _ in range(20)]
    return {
        "case": f"a history of {records} small records",
        "add_ms": spread(adds),
        "get_ms": spread(gets),
        "find_200_ms": spread(finds),
    }


def main() -> None:
    """Runs both and appends the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--records", type=int, default=1000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = [killed(chosen.trials, Path(folder)), timed(chosen.records, Path(folder))]
    for line in found:
        print(line)
    print(append("store", found))


def _milliseconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - began)


if __name__ == "__main__":
    main()
