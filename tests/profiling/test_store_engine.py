"""A history that is damaged, full, read-only, or of another version."""

import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import event, text

from attnscope.kernels.errors import HistoryDamaged, HistoryUnavailable, RecordUnreadable
from attnscope.profiling.store import Store
from attnscope.profiling.store_engine import VERSION_TABLE
from attnscope.profiling.store_rows import RUNS
from tests.profiling.records import RECORD

RECORDS = [replace(RECORD, seed=seed) for seed in range(40)]


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """A history of some pages, closed, so that all of it is in one file."""
    path = tmp_path / "history.sqlite3"
    with Store.open(path) as store:
        store.add_all(RECORDS)
    return path


def kept_aside(history: Path) -> list[Path]:
    return sorted(history.parent.glob("history.sqlite3.damaged-*"))


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: b"no database at all" * 100, id="no database"),
        pytest.param(lambda content: content[: len(content) // 2], id="cut to half"),
        pytest.param(lambda content: content[:100], id="cut to its header"),
        pytest.param(lambda content: b"\0" * 16 + content[16:], id="header gone"),
        pytest.param(lambda content: content[:4096] + b"\xff" * 4096 + content[8192:], id="a page"),
    ],
)
def test_a_damaged_file_is_kept_and_a_new_history_begun(history: Path, damage):
    damaged = damage(history.read_bytes())
    history.write_bytes(damaged)
    with Store.open(history) as store:
        assert store.count() == 0
        (kept,) = kept_aside(history)
        assert kept.read_bytes() == damaged
        (told,) = store.notices
        assert str(kept) in told
        assert str(history) in told
        assert store.add(RECORD)
    with Store.open(history) as store:
        assert store.notices == ()
        assert store.get(RECORD.id) == RECORD


@pytest.mark.parametrize("trial", range(12))
def test_flipped_bytes_are_never_read_as_a_record(history: Path, trial: int):
    chance = random.Random(trial)
    content = bytearray(history.read_bytes())
    for at in chance.sample(range(len(content)), 3):
        content[at] ^= 1 << chance.randrange(8)
    history.write_bytes(content)
    read = []
    with Store.open(history) as store:
        for record in RECORDS if not store.notices else []:
            try:
                read.append(store.get(record.id) == record)
            except (RecordUnreadable, HistoryUnavailable):
                continue
        assert all(read)
        assert read or store.notices
    assert bool(kept_aside(history)) == bool(store.notices)


def test_damage_that_appears_while_it_is_open_is_named(history: Path):
    with Store.open(history) as store:
        store.count()
        store._engine.dispose()
        history.write_bytes(history.read_bytes()[:4096] + b"\xff" * (history.stat().st_size - 4096))
        with pytest.raises(HistoryDamaged, match=r"history\.sqlite3 is damaged"):
            store.find()
    with Store.open(history) as store:
        assert len(store.notices) == 1


def test_a_history_of_a_newer_version_is_left_as_it_is(history: Path):
    with Store.open(history) as store, store._engine.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = 'v99'"))
    before = history.read_bytes()
    with pytest.raises(HistoryUnavailable, match="schema v99, and this version reads up to v"):
        Store.open(history)
    assert history.read_bytes() == before
    assert kept_aside(history) == []


def test_the_migrations_end_at_the_schema_of_the_code(history: Path):
    """As attnscope.profiling.migrations.env ran attnscope.profiling.migrations.versions.v1_runs."""
    with Store.open(history) as store, store._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, RUNS.metadata) == []


def test_a_migration_that_was_killed_is_done_again(tmp_path: Path):
    path = tmp_path / "history.sqlite3"
    with Store.open(path) as store, store._engine.connect() as connection:
        # As it is when a process dies within the first one: nothing of it was committed.
        connection.execute(text(f"DROP TABLE {VERSION_TABLE}"))
        connection.execute(text("DROP TABLE attnscope_runs"))
        connection.rollback()
        assert connection.execute(text("SELECT count(*) FROM attnscope_runs")).scalar_one() == 0
    with Store.open(path) as store:
        assert store.add(RECORD)


def test_a_full_disk_is_said_and_what_was_there_stays(history: Path):
    with Store.open(history) as store:
        before = store.count()

        def fill(connection, _):
            connection.execute("PRAGMA max_page_count=1")  # SQLite raises it to what is in use.

        event.listen(store._engine, "connect", fill)
        store._engine.dispose()
        more = [replace(RECORD, seed=seed) for seed in range(100, 140)]
        with pytest.raises(HistoryUnavailable, match="The disk is full"):
            store.add_all(more)
        assert store.count() == before


@contextmanager
def nobody() -> Iterator[None]:
    """Root may write anywhere, so for a moment it is not root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_folder_that_may_not_be_written_is_named():
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        with nobody(), pytest.raises(HistoryUnavailable, match="Permission denied") as told:
            Store.open(Path(folder) / "history.sqlite3")
        assert folder in str(told.value)


def test_a_folder_that_is_a_file_is_named(tmp_path: Path):
    (tmp_path / "data").write_text("")
    with pytest.raises(HistoryUnavailable, match="data"):
        Store.open(tmp_path / "data" / "history.sqlite3")
