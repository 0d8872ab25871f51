"""The history of runs: records kept whole, found by what they are. SQLite by default, PostgreSQL by URL.

A record is immutable and named by its content, so adding one twice changes nothing. What `add`
returned from is on the disk.
"""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    and_,
    func,
    or_,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import ReturningInsert

from attnscope.kernels.errors import InvalidCall, RecordUnreadable, RunMissing
from attnscope.profiling.record import RunRecord
from attnscope.profiling.store_engine import open_engine, spoken, url_of
from attnscope.profiling.store_rows import KINDS, RUNS, RunRow, row_of

Order = Literal["created", "length", "median_s", "tokens_per_s", "peak_bytes"]

_SEARCHED = ("model_title", "model_source", "backend", "device_name", "kernel", "flags", "reason")
_MOST = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which runs are wanted; what is empty lets everything through.

    Attributes:
        text: Found in the model, the backend, the device, the kernel, the flags or the reason, in
            any case of letters.
        model_title: Any of these, as are the following.
        backend: As asked for.
        phase: Of generation.
        dtype: Of the model.
        device_name: The device's own.
        outcome: `store_rows.MEASURED` or those of failures.
        shortest: Least length, tokens.
        longest: Greatest length, tokens.
        config_hash: Of the model's config; any of these.
    """

    text: str = ""
    model_title: tuple[str, ...] = ()
    backend: tuple[str, ...] = ()
    phase: tuple[str, ...] = ()
    dtype: tuple[str, ...] = ()
    device_name: tuple[str, ...] = ()
    outcome: tuple[str, ...] = ()
    shortest: int = 0
    longest: int = _MOST
    config_hash: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        words = [self.text, *(word for name in CHOICES for word in getattr(self, name))]
        words += self.config_hash
        if any("\0" in word or not _is_text(word) for word in words):
            raise InvalidCall("A filter holds a character that no run can have.")
        if not 0 <= self.shortest <= _MOST or not 0 <= self.longest <= _MOST:
            raise InvalidCall(f"Lengths from {self.shortest} to {self.longest} cannot be.")

    @property
    def is_empty(self) -> bool:
        """Whether every run is let through."""
        return self == Filters()


CHOICES = ("model_title", "backend", "phase", "dtype", "device_name", "outcome")
"""The filters that choose among values."""


class Store:
    """A history. Safe to use from several threads and processes.

    Attributes:
        url: Of the database.
        notices: What whoever opened it must be told: that a damaged file was set aside.
    """

    def __init__(self, engine: Engine, url: URL, notices: tuple[str, ...] = ()) -> None:
        self._engine = engine
        self.url = url
        self.notices = notices
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @classmethod
    def open(cls, where: Path | str) -> "Store":
        """Opens a history, made where it is missing.

        Args:
            where: A file for SQLite, or the URL of a PostgreSQL database.

        Raises:
            HistoryUnavailable: It cannot be; says why.
        """
        url = url_of(where)
        engine, notices = open_engine(url)
        return cls(engine, url, notices)

    @classmethod
    def holding(cls, records: Iterable[RunRecord]) -> "Store":
        """A history of these records alone, that goes when it is closed."""
        folder = tempfile.TemporaryDirectory()
        store = cls.open(Path(folder.name) / "runs.sqlite3")
        store._folder = folder
        store.add_all(records)
        return store

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the database."""
        self._engine.dispose()
        if self._folder is not None:
            self._folder.cleanup()

    def add(self, record: RunRecord) -> bool:
        """Keeps a record; on return it is on the disk.

        Returns:
            Whether it was new.

        Raises:
            RecordUnreadable: No database can hold its values.
            HistoryUnavailable: It could not be written, and nothing was.
        """
        return self.add_all([record]) == 1

    def add_all(self, records: Iterable[RunRecord], *, imported_from: str = "") -> int:
        """Keeps all of these records, or none where one cannot be kept.

        Args:
            records: Any number.
            imported_from: Name of the file they came with.

        Returns:
            How many were new.

        Raises:
            RecordUnreadable: No database can hold the values of one.
            HistoryUnavailable: They could not be written.
        """
        rows = [
            {**asdict(row_of(record, imported_from)), "record": record.to_json()}
            for record in records
        ]
        with spoken(self.url), self._engine.begin() as connection:
            return sum(connection.scalar(self._insert(), row) is not None for row in rows)

    def get(self, run: str) -> RunRecord:
        """The record of an id.

        Raises:
            RunMissing: No such run.
            RecordUnreadable: What is stored of it is damaged.
            HistoryUnavailable: The database does not answer.
        """
        with self._reading() as connection:
            found = connection.execute(select(RUNS).where(RUNS.c.id == run)).one_or_none()
        if found is None:
            raise RunMissing(f"There is no run {run!r} in the history.")
        stored = dict(found._mapping)
        record = RunRecord.from_json(stored.pop("record"))
        if record.id != run or RunRow(**stored) != row_of(record, stored["imported_from"]):
            raise RecordUnreadable(f"What is stored of run {run} contradicts itself.")
        return record

    def find(
        self,
        filters: Filters | None = None,
        *,
        order: Order = "created",
        descending: bool = True,
        limit: int | None = None,
        offset: int = 0,
    ) -> tuple[RunRow, ...]:
        """The rows of the runs wanted.

        Args:
            filters: All when None.
            order: By which column; runs without that figure come last.
            descending: The greatest first.
            limit: How many at most.
            offset: How many to leave out before.

        Raises:
            InvalidCall: No such order.
            HistoryUnavailable: The database does not answer.
        """
        if order not in get_args(Order):
            raise InvalidCall(f"Runs are not ordered by {order!r}.", f"Use {get_args(Order)}.")
        column = RUNS.c[order]
        directed = column.desc() if descending else column.asc()
        columns = [RUNS.c[name] for name in KINDS]
        wanted = (
            select(*columns).where(_condition(filters)).order_by(directed.nulls_last(), RUNS.c.id)
        )
        with self._reading() as connection:
            found = connection.execute(wanted.limit(limit).offset(offset)).all()
        return tuple(RunRow(**row._mapping) for row in found)

    def count(self, filters: Filters | None = None) -> int:
        """How many runs are wanted."""
        wanted = select(func.count()).select_from(RUNS).where(_condition(filters))
        with self._reading() as connection:
            return connection.execute(wanted).scalar_one()

    def choices(self) -> dict[str, tuple[str, ...]]:
        """The values that each filter of `CHOICES` finds something by, in order."""
        with self._reading() as connection:
            return {
                name: tuple(
                    connection.scalars(select(RUNS.c[name]).distinct().order_by(RUNS.c[name]))
                )
                for name in CHOICES
            }

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with spoken(self.url), self._engine.connect() as connection:
            yield connection

    def _insert(self) -> ReturningInsert[Any]:
        of = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}[self._engine.dialect.name]
        return of(RUNS).on_conflict_do_nothing().returning(RUNS.c.id)


def _condition(filters: Filters | None) -> ColumnElement[bool]:
    wanted = filters or Filters()
    parts: list[Any] = [RUNS.c.length.between(wanted.shortest, wanted.longest)]
    chosen = {name: getattr(wanted, name) for name in (*CHOICES, "config_hash")}
    parts += [RUNS.c[name].in_(values) for name, values in chosen.items() if values]
    if wanted.text:
        parts.append(
            or_(*(RUNS.c[name].icontains(wanted.text, autoescape=True) for name in _SEARCHED))
        )
    return and_(*parts)


def _is_text(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True
