"""Opening the database of the history: SQLite in a file, or PostgreSQL by URL, at the newest schema.

A damaged SQLite file is never written to: it is kept under another name, and a new one is begun.
"""

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import alembic.command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from attnscope.kernels.errors import HistoryDamaged, HistoryUnavailable

VERSION_TABLE = "attnscope_version"

_MIGRATIONS = Path(__file__).resolve().with_name("migrations")
_LOCK = int.from_bytes(b"attnscop")
"""Of PostgreSQL's advisory locks, the one that whoever changes the schema holds."""

_PATIENCE_S = 30
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_REMEDIES = {
    sqlite3.SQLITE_FULL: "The disk is full: make room, and try again.",
    sqlite3.SQLITE_READONLY: "It may only be read: allow writing, or choose another ATTNSCOPE_DATA.",
    sqlite3.SQLITE_CANTOPEN: "Check the folder and its rights, or choose another ATTNSCOPE_DATA.",
    sqlite3.SQLITE_BUSY: "Another process has been writing to it for long: try again.",
    sqlite3.SQLITE_IOERR: "The disk did not answer as it should: check it.",
}


def url_of(where: Path | str) -> URL:
    """The database's address.

    Args:
        where: A file for SQLite, or a URL such as `postgresql://user@host/database`.

    Raises:
        HistoryUnavailable: It is neither.
    """
    if isinstance(where, Path) or "://" not in where:
        return URL.create("sqlite", database=str(where))
    try:
        url = make_url(where)
    except (ArgumentError, ValueError) as error:
        raise HistoryUnavailable("The URL of the history cannot be read.", _FORMS) from error
    kind = url.get_backend_name()
    if kind == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    if kind == "sqlite" and url.database:
        return url
    raise HistoryUnavailable(f"The history cannot be kept in {kind}.", _FORMS)


_FORMS = "Give a file for SQLite, or postgresql://user@host/database."


def open_engine(url: URL) -> tuple[Engine, tuple[str, ...]]:
    """Opens the database and brings it to the newest schema.

    Returns:
        The engine, and what whoever opened it must be told.

    Raises:
        HistoryUnavailable: It cannot be opened, or a newer version wrote it; says why.
    """
    if url.get_backend_name() != "sqlite":
        return _opened(url), ()
    path = Path(str(url.database))
    with _alone(path):
        try:
            return _opened(url), ()
        except HistoryDamaged as error:
            kept = _set_aside(path)
            told = f"{error.message} It is kept as {kept}, and a new history was begun."
            return _opened(url), (told,)


@contextmanager
def spoken(url: URL) -> Iterator[None]:
    """Says in words what a database refuses.

    Raises:
        HistoryDamaged: The file is damaged.
        HistoryUnavailable: Anything else.
    """
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        # An extended code keeps the kind in its low byte.
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
        place = _place(url)
        if code in _DAMAGED:
            raise _damaged(place, str(cause)) from error
        remedy = _REMEDIES.get(code, "Check that the database is there and may be used.")
        why = str(cause).strip().partition("\n")[0]
        raise HistoryUnavailable(f"The history {place} cannot be used: {why}.", remedy) from error


def _place(url: URL) -> str:
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return url.render_as_string(hide_password=True)


def _damaged(place: str, found: str) -> HistoryDamaged:
    return HistoryDamaged(
        f"The history {place} is damaged: {found}.",
        "Open it again: it will be kept under another name, and a new one begun.",
    )


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time opens, repairs and migrates a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(f"{path.name}.lock").open("w")
    except OSError as error:
        raise HistoryUnavailable(
            f"The history {path} cannot be written: {error.strerror}.",
            _REMEDIES[sqlite3.SQLITE_CANTOPEN],
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _opened(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": _PATIENCE_S})
        event.listen(engine, "connect", _make_durable)
        event.listen(engine, "begin", _begin)
    else:
        engine = create_engine(url, pool_pre_ping=True)
    try:
        with spoken(url):
            _check(engine)
            with engine.begin() as connection:
                _migrate(connection, _place(url))
    except HistoryUnavailable:
        engine.dispose()
        raise
    return engine


def _make_durable(connection: sqlite3.Connection, _: Any) -> None:
    # Transactions are begun by `_begin`: Python's own leave changes of the schema outside.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _check(engine: Engine) -> None:
    if engine.dialect.name != "sqlite":
        return
    with engine.connect() as connection:
        found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    if found != "ok":
        raise _damaged(_place(engine.url), found)


def _migrate(connection: Connection, place: str) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    scripts = ScriptDirectory(str(_MIGRATIONS))
    found = MigrationContext.configure(
        connection, opts={"version_table": VERSION_TABLE}
    ).get_current_revision()
    newest = scripts.get_current_head()
    if found == newest:
        return
    if found is not None and found not in {each.revision for each in scripts.walk_revisions()}:
        raise HistoryUnavailable(
            f"The history {place} has schema {found}, and this version reads up to {newest}.",
            "Use the newer version of Attnscope that wrote it, or another place for the history.",
        )
    config = Config(attributes={"connection": connection})
    # Alembic reads % in an option as the beginning of a name.
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    alembic.command.upgrade(config, "head")


def _set_aside(path: Path) -> Path:
    """Renames a file, and what SQLite keeps beside it, to names with the time."""
    time = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    kept = path.with_name(f"{path.name}.damaged-{time}")
    for suffix in ("", "-wal", "-shm"):
        beside = path.with_name(path.name + suffix)
        if beside.exists():
            beside.rename(kept.with_name(kept.name + suffix))
    return kept
