"""What goes from the data folder, and what stays whatever its age."""

import json
import os
import threading
from pathlib import Path

import pytest

from attnscope.app.cli import main
from attnscope.app.jobs import retention
from attnscope.app.jobs.profiles import ProfileFolder
from attnscope.app.jobs.queue import JobQueue
from attnscope.app.jobs.retention import KINDS, entries, keep_tidy, sizes, tidy
from attnscope.app.settings import Settings
from attnscope.profiling.units import nbytes

DAY = 86_400.0
NOW = 1_000 * DAY


def age(path: Path, days: float) -> None:
    """As if it had been used so many days before `NOW`."""
    os.utime(path, (NOW - days * DAY, NOW - days * DAY))


def lay(path: Path, days: float, text: str = "text") -> Path:
    """A file, and the folder that it lies in, last used so many days before `NOW`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    for each in (path, path.parent):
        age(each, days)
    return path


def named(number: int) -> str:
    return f"{number:032x}"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data=tmp_path, keep_days=30)


def gone(settings: Settings, busy: frozenset[str] = frozenset()) -> set[str]:
    removed = tidy(settings, busy, clock=lambda: NOW)
    assert not any(entry.path.exists() for entry in removed)
    return {str(entry.path.relative_to(settings.data)) for entry in removed}


def test_what_was_not_used_for_so_long_goes_and_nothing_else(settings: Settings) -> None:
    data, old, new = settings.data, 31, 29
    for kind in ("captures", "checks"):
        lay(data / kind / named(1) / "file", old)
        lay(data / kind / named(2) / "file", new)
    kept_files = {"prompts": ".json", "assignments": ".json", "matrices": ".npy", "pictures": ""}
    for kind, suffix in kept_files.items():
        lay(data / kind / (named(1) + suffix), old)
        lay(data / kind / (named(2) + suffix), new)
    lay(data / "captures" / f"{named(3)}.ab12.part" / "file", old)
    for kept in ("captures/secret", "cookie_secret", "history.sqlite3", "queue-1.sqlite"):
        lay(data / kept, 900)
    for kept in ("ceilings/0123456789abcdef.json", "mechanisms/rope.jsonl"):
        lay(data / kept, 900)
    before = {path for path in data.rglob("*") if path.is_file()}
    removed = gone(settings)
    assert removed == {
        *(f"{kind}/{named(1)}" for kind in ("captures", "checks")),
        *(f"{kind}/{named(1)}{suffix}" for kind, suffix in kept_files.items()),
        f"captures/{named(3)}.ab12.part",
    }
    left = {path for path in data.rglob("*") if path.is_file()}
    assert len(before) - len(left) == len(removed)
    assert gone(settings) == set()


def test_a_look_at_it_or_one_new_file_keeps_the_whole(settings: Settings) -> None:
    folder = settings.data / "checks" / named(1)
    lay(folder / "asked.json", 90)
    lay(folder / "results.jsonl", 2)
    age(folder, 90)
    assert gone(settings) == set()
    lay(folder / "results.jsonl", 90)
    age(folder, 0)
    assert gone(settings) == set()
    age(folder, 90)
    assert gone(settings) == {f"checks/{named(1)}"}


def test_what_a_waiting_or_running_job_names_stays(settings: Settings, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        lay(settings.data / "profiles" / named(number) / "plan.json", 90)
    queue = JobQueue(tmp_path / "queue.sqlite")
    jobs = [
        queue.add("profile", {"profile": named(number), "lengths": [1]}, owner="ada", device="auto")
        for number in (1, 2, 3)
    ]
    queue.claim("cpu")
    queue.finish(jobs[2], "failed")
    assert gone(settings, frozenset(queue.named())) == {f"profiles/{named(3)}"}
    queue.close()


def test_runs_that_the_history_does_not_hold_stay(settings: Settings) -> None:
    root = settings.data / "profiles"
    for number in (1, 2):
        folder = ProfileFolder(root, named(number))
        lay(folder.records, 90, json.dumps({"id": "a"}) + "\n" + json.dumps({"id": "b"}) + "\n{")
        folder.keep("a")
    folder.keep("b")
    for number in (1, 2):
        for path in (*(root / named(number)).iterdir(), root / named(number)):
            age(path, 90)
    assert gone(settings) == {f"profiles/{named(2)}"}


def test_it_is_done_at_the_start_and_again_each_day_whatever_fails(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    tried: list[frozenset[str]] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0.0)
            return len(waits) == 3

    def broken(settings: Settings, busy: frozenset[str]) -> None:
        tried.append(busy)
        raise PermissionError("read-only")

    monkeypatch.setattr(retention, "tidy", broken)
    keep_tidy(settings, lambda: frozenset({"id"}), Stop())
    assert waits == [DAY] * 3
    assert tried == [frozenset({"id"})] * 3


def test_sizes_are_of_all_and_entries_of_what_goes(settings: Settings) -> None:
    lay(settings.data / "captures" / named(1) / "file", 3, "x" * 500)
    lay(settings.data / "captures" / named(2) / "file", 5, "x" * 200)
    lay(settings.data / "history.sqlite3", 3, "x" * 900)
    assert list(sizes(settings.data).items()) == [("history.sqlite3", 900), ("captures", 700)]
    assert [entry.nbytes for entry in entries(settings.data, "captures")] == [200, 500]


def test_the_command_says_what_lies_there_and_tidies_when_asked(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTNSCOPE_DATA", str(settings.data))
    kept = lay(settings.data / "captures" / named(1) / "file", 1, "x" * 2048)
    assert main(["data"]) == 0
    told = capsys.readouterr().out
    assert f"{', '.join(KINDS)} go 30 days after their last use" in told
    assert nbytes(2048) in told
    assert kept.exists()
    assert main(["data", "--tidy"]) == 0
    assert f"deleted 1 entries, {nbytes(2048)}" in capsys.readouterr().out
    assert not kept.exists()
