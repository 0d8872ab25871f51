"""The history over SQLite and over a real PostgreSQL: what was added is found, whole, by what it is."""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attnscope.kernels.errors import (
    HistoryUnavailable,
    InvalidCall,
    RecordUnreadable,
    RunMissing,
)
from attnscope.profiling.record import RunRecord
from attnscope.profiling.store import Filters, Store
from attnscope.profiling.store_rows import RUNS, row_of
from tests.profiling.killed import acknowledged, integrity
from tests.profiling.postgres import postgres
from tests.profiling.records import FAILED, RECORD, TIMING


@pytest.fixture(scope="module")
def new_database() -> Iterator[Callable[[], str]]:
    with postgres() as new_database:
        yield new_database


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    if request.param == "sqlite":
        return tmp_path / "deep" / "history.sqlite3"
    return request.getfixturevalue("new_database")()


@pytest.fixture
def store(where: Path | str) -> Iterator[Store]:
    with Store.open(where) as store:
        yield store


def run(backend: str = "tiled", length: int = 128, milliseconds: float = 5, **changed: Any):
    cell = replace(RECORD.cell, backend=backend, length=length)
    timing = replace(TIMING, samples_s=(milliseconds / 1e3,) * 20)
    return replace(RECORD, **{"cell": cell, "timing": timing, **changed})


def test_a_record_comes_back_whole_and_the_second_time_nothing_is_added(where: Path | str):
    with Store.open(where) as store:
        assert store.add(RECORD)
        assert not store.add(RECORD)
    with Store.open(where) as store:
        assert store.get(RECORD.id) == RECORD
        assert store.get(RECORD.id).to_json() == RECORD.to_json()
        assert store.count() == 1
        assert store.notices == ()


def test_a_row_says_what_the_record_says(store: Store):
    store.add_all([RECORD], imported_from="theirs.jsonl")
    store.add(FAILED)
    rows = {row.id: row for row in store.find()}
    row, failed = rows[RECORD.id], rows[FAILED.id]
    assert (row.model_title, row.backend, row.length) == (RECORD.model.title, "tiled", 128)
    assert (row.median_s, row.p90_s) == (TIMING.median_s, TIMING.p90_s)
    assert row.tokens_per_s == 2 * 128 / TIMING.median_s
    assert (row.peak_bytes, row.kernel, row.outcome) == (100, "tiled", "measured")
    assert (row.imported_from, failed.imported_from) == ("theirs.jsonl", "")
    assert (failed.outcome, failed.reason) == ("out_of_memory", "needs 7 GiB")
    assert (failed.median_s, failed.peak_bytes, failed.is_measured) == (None, None, False)


PLACED = (
    run("eager", 64, 3, created="2026-11-01T00:00:00+00:00"),
    run("tiled", 64, 2, created="2026-11-02T00:00:00+00:00"),
    # Later by the clock of its place, and earlier by the world's.
    run("tiled", 512, 9, created="2026-11-02T01:00:00+05:00"),
    replace(FAILED, created="2026-11-04T00:00:00+00:00"),
)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        pytest.param(Filters(), (0, 1, 2, 3), id="all"),
        pytest.param(Filters(backend=("eager",)), (0,), id="one value"),
        pytest.param(Filters(backend=("eager", "tiled"), shortest=100), (2, 3), id="two together"),
        pytest.param(Filters(longest=64), (0, 1), id="up to a length"),
        pytest.param(Filters(outcome=("out_of_memory",)), (3,), id="outcome"),
        pytest.param(Filters(text="EAGER"), (0,), id="text in any case"),
        pytest.param(Filters(text="7 gib"), (3,), id="text of a reason"),
        pytest.param(Filters(text="%"), (), id="no wildcard"),
        pytest.param(Filters(text="_ager"), (), id="no wildcard of one"),
        pytest.param(Filters(text="'; DROP TABLE attnscope_runs; --"), (), id="no SQL"),
        pytest.param(Filters(dtype=("float16",)), (), id="none"),
    ],
)
def test_runs_are_found_by_what_they_are(store: Store, filters: Filters, expected: tuple[int, ...]):
    store.add_all(PLACED)
    assert {row.id for row in store.find(filters)} == {PLACED[at].id for at in expected}
    assert store.count(filters) == len(expected)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        pytest.param({}, [3, 1, 2, 0], id="newest first"),
        pytest.param({"order": "median_s", "descending": False}, [1, 0, 2, 3], id="fastest first"),
        pytest.param({"order": "median_s"}, [2, 0, 1, 3], id="no figure comes last"),
        pytest.param({"limit": 2, "offset": 1}, [1, 2], id="a part"),
    ],
)
def test_runs_come_in_the_order_asked_for(store: Store, order: dict[str, Any], expected: list[int]):
    store.add_all(PLACED)
    assert [row.id for row in store.find(**order)] == [PLACED[at].id for at in expected]


def test_filters_offer_what_is_there(store: Store):
    store.add_all(PLACED)
    choices = store.choices()
    assert choices["backend"] == ("eager", "tiled")
    assert choices["outcome"] == ("measured", "out_of_memory")


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(lambda: Filters(text="\0"), id="NUL"),
        pytest.param(lambda: Filters(backend=("\ud800",)), id="half a surrogate pair"),
        pytest.param(lambda: Filters(longest=2**80), id="beyond 64 bits"),
    ],
)
def test_what_no_run_can_have_is_refused(asked: Callable[[], Filters]):
    with pytest.raises(InvalidCall):
        asked()


def test_an_order_that_is_none_is_refused(store: Store):
    with pytest.raises(InvalidCall, match="reason"):
        store.find(order="reason")  # pyright: ignore[reportArgumentType]


def test_a_run_that_is_not_there_is_missing(store: Store):
    with pytest.raises(RunMissing, match="beef"):
        store.get("beef")


HOSTILE = [
    pytest.param({"created": "yesterday"}, "yesterday", id="no time"),
    pytest.param({"model": replace(RECORD.model, title="a\0b")}, "NUL", id="NUL"),
    pytest.param({"model": replace(RECORD.model, title="\ud800")}, "surrogate", id="surrogate"),
    pytest.param({"cell": replace(RECORD.cell, batch=2**70)}, "batch", id="beyond 64 bits"),
    pytest.param({"cell": replace(RECORD.cell, length=0)}, "0 tokens", id="no token"),
    pytest.param(
        {"timing": replace(TIMING, samples_s=())}, "holds what no measurement", id="no sample"
    ),
    pytest.param({"timing": replace(TIMING, samples_s=(float("nan"),) * 20)}, "nan", id="NaN"),
    pytest.param(
        {"timing": replace(TIMING, samples_s=(0.0,) * 20)}, "division", id="no time passed"
    ),
    pytest.param({"timing": None}, "median", id="neither figure nor failure"),
]


@pytest.mark.parametrize(("changed", "said"), HOSTILE)
def test_a_record_that_no_measurement_gives_is_refused_and_the_others_with_it(
    store: Store, changed: dict[str, Any], said: str
):
    with pytest.raises(RecordUnreadable, match=said):
        store.add_all([RECORD, replace(RECORD, **changed)])
    assert store.count() == 0


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"median_s": 1.0}, id="a column"),
        pytest.param({"record": RECORD.to_json().replace("two cores", "ten cores")}, id="record"),
        pytest.param({"record": "{"}, id="no JSON"),
        pytest.param({"record": replace(RECORD, seed=9).to_json()}, id="another record"),
    ],
)
def test_what_was_changed_in_the_database_is_noticed(store: Store, change: dict[str, Any]):
    store.add(RECORD)
    with store._engine.begin() as connection:
        connection.execute(RUNS.update().values(**change))
    with pytest.raises(RecordUnreadable):
        store.get(RECORD.id)


def test_a_store_of_given_records_holds_them_alone():
    with Store.holding(PLACED) as store:
        assert store.count() == len(PLACED)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        pytest.param("mysql://host/runs", "mysql", id="another database"),
        pytest.param("://", "cannot be read", id="no URL"),
        pytest.param(
            "postgresql://u:secret@127.0.0.1:9/runs?connect_timeout=2",
            "cannot be used",
            id="nobody",
        ),
    ],
)
def test_a_place_that_is_none_is_refused_and_no_password_is_told(url: str, said: str):
    with pytest.raises(HistoryUnavailable, match=said) as told:
        Store.open(url)
    assert "secret" not in str(told.value)


def test_two_processes_add_to_one_history(store: Store, where: Path | str):
    with Store.open(where) as other:
        assert store.add(RECORD)
        assert not other.add(RECORD)
        assert other.add(FAILED)
    assert store.count() == 2


@pytest.mark.parametrize("trial", range(10))
def test_no_acknowledged_run_is_lost_to_kill_9(tmp_path: Path, trial: int):
    history = tmp_path / "history.sqlite3"
    with Store.open(history) as store:
        store.add(RECORD)
    told = acknowledged(history, after_s=random.Random(trial).uniform(0, 0.1), seed=trial + 1)
    assert told
    assert integrity(history) == "ok"
    with Store.open(history) as store:
        assert store.notices == ()
        kept = {row.id for row in store.find()}
        assert {*told, RECORD.id} <= kept
        # At most the one that was being written when it died.
        assert len(kept) <= len(told) + 2


def test_the_json_of_a_row_is_what_the_database_holds(store: Store):
    store.add(RECORD)
    with store._engine.connect() as connection:
        stored = connection.execute(RUNS.select()).one()._mapping
    assert RunRecord.from_json(stored["record"]) == RECORD
    assert json.loads(stored["record"])["id"] == stored["id"] == row_of(RECORD).id
