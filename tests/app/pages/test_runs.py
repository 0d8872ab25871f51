"""The page Runs without a browser: what it lists, opens, compares, refuses."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from attnscope.app.pages import runs
from attnscope.app.state import Key
from attnscope.app.views.runs import RunsSession
from attnscope.profiling import reference_runs as shipped
from attnscope.profiling.record_files import LARGEST_FILE, to_lines, to_parquet
from attnscope.profiling.store import Store

# Run from elsewhere: beside a folder named `pages`, AppTest would run its files as pages.
from tests.app.pages.opened import open_page, told
from tests.profiling.records import FAILED, RECORD, TIMING

SCRIPT = """
from attnscope.app.components.notice import guarded
from attnscope.app.pages import runs
from attnscope.app.views.runs import RunsSession
import streamlit as st

guarded(lambda: runs.page(RunsSession(st.session_state, st.query_params)))()
"""
OWN = (
    RECORD,
    replace(
        RECORD,
        cell=replace(RECORD.cell, backend="eager"),
        timing=replace(TIMING, samples_s=(0.6,) * 20),
    ),
    replace(FAILED, cell=replace(RECORD.cell, backend="flex", length=4096)),
)
REFERENCE = replace(RECORD, seed=7)
TWO = [RECORD, FAILED]


@pytest.fixture(autouse=True)
def data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    monkeypatch.setenv("ATTNSCOPE_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "reference")
    shipped.reference_runs.cache_clear()
    st.cache_resource.clear()
    (tmp_path / "reference").mkdir()
    yield tmp_path / "data"
    shipped.reference_runs.cache_clear()
    st.cache_resource.clear()


@pytest.fixture
def history(data: Path, tmp_path: Path) -> Path:
    (tmp_path / "reference" / "a.jsonl").write_bytes(to_lines([REFERENCE]))
    with Store.open(data / "history.sqlite3") as store:
        store.add_all(OWN)
    return data / "history.sqlite3"


def visit(**query: str) -> AppTest:
    app = open_page(SCRIPT, **query)
    assert not app.exception
    return app


def alternatives(app: AppTest) -> list[str]:
    return [element.proto.alt for element in app.get("plotly_chart")]


def test_a_first_visit_says_how_to_make_a_run():
    app = visit()
    assert "attnscope profile" in told(app)
    assert not app.dataframe


@pytest.mark.usefixtures("history")
def test_own_runs_and_those_that_ship_are_listed_and_drawn():
    app = visit()
    table = app.dataframe[0].value
    assert len(table) == 4
    assert sorted(table["of"]) == ["own", "own", "own", "reference"]
    assert "out of memory" in " ".join(table["to know"])
    assert "4 runs" in alternatives(app)[0]


@pytest.mark.parametrize(
    ("query", "backends"),
    [
        ({"of": "reference"}, ["tiled"]),
        ({"of": "own", "backend": "eager,flex"}, ["eager", "flex"]),
        ({"outcome": "out_of_memory"}, ["flex"]),
        ({"text": "7 GiB"}, ["flex"]),
        ({"from": "1000"}, ["flex"]),
    ],
)
@pytest.mark.usefixtures("history")
def test_a_link_filters(query: dict[str, str], backends: list[str]):
    app = visit(**query)
    assert sorted(app.dataframe[0].value["backend"]) == backends


@pytest.mark.usefixtures("history")
def test_a_filter_chosen_is_in_the_address_and_one_that_fits_nothing_is_said():
    app = visit()
    app.multiselect(key=Key.RUNS_BACKEND).select("eager").run()
    assert app.query_params["backend"] in ("eager", ["eager"])
    assert list(app.dataframe[0].value["backend"]) == ["eager"]
    app.text_input(key=Key.RUNS_TEXT).input("nowhere").run()
    assert "No run fits these filters." in told(app)


@pytest.mark.usefixtures("history")
def test_one_run_is_opened_with_all_it_holds():
    app = visit(run=RECORD.id)
    page = told(app)
    for each in (
        RECORD.id,
        "c0ffee",
        "no GPU",
        "aten::mm",
        "nothing was left out",
        "Time by module",
    ):
        assert each in page
    assert [text.partition(";")[0] for text in alternatives(app)][1].startswith(
        "Memory over one run"
    )
    assert RECORD.id in app.code[0].value


@pytest.mark.usefixtures("history")
def test_a_failed_run_says_why_and_what_to_do():
    page = told(visit(run=OWN[2].id))
    assert "Out of memory: needs 7 GiB." in page
    assert "less" in page


@pytest.mark.usefixtures("history")
def test_several_runs_are_compared_with_the_first_that_has_figures():
    app = visit(run=",".join(record.id for record in (OWN[2], OWN[0], OWN[1])))
    page = told(app)
    assert "3 runs compared" in page
    assert "(1.99x)" in page or "(2.00x)" in page
    assert "different numbers of tokens" in page
    # Figures of one length make no line.
    assert alternatives(app) == []


def test_runs_of_several_lengths_are_drawn_over_them(history: Path):
    longer = replace(RECORD, cell=replace(RECORD.cell, length=512))
    with Store.open(history) as store:
        store.add(longer)
    (alternative,) = alternatives(visit(run=f"{RECORD.id},{longer.id}"))
    assert alternative.startswith("Time and peak memory of the runs compared. 2 runs on two cores")


@pytest.mark.usefixtures("history")
def test_a_run_that_is_not_there_is_a_sentence():
    assert "There is no run" in told(visit(run="f" * 16))


class _Upload:
    def __init__(self, content: bytes, name: str) -> None:
        self.name = name
        self.getvalue = lambda: content


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        pytest.param("a.jsonl", to_lines(TWO), "a.jsonl: 1 new, 1 known already", id="lines"),
        pytest.param("a.parquet", to_parquet(TWO), "a.parquet: 1 new, 1 known", id="parquet"),
        pytest.param("a.jsonl", b"<script>alert(1)</script>", "Line 1 of a.jsonl", id="hostile"),
        pytest.param("a.parquet", to_lines(TWO), "no Parquet file", id="another kind"),
        pytest.param("a.csv", to_lines(TWO), "neither JSON Lines nor Parquet", id="no kind"),
        pytest.param("a.jsonl", b" " * (LARGEST_FILE + 1), "an import takes", id="too large"),
    ],
)
def test_an_import_adds_what_is_new_or_says_why_not(
    history: Path, name: str, content: bytes, said: str
):
    session = RunsSession({Key.RUNS_UPLOAD: _Upload(content, name)}, {})
    with Store.open(history) as store:
        shelves = runs.Shelves(own=store, reference=store)
        runs._act(session, lambda: runs._import(session, shelves))()
        (notice,) = session.notices
        assert said in notice.message
        assert store.count() == 3 + ("1 new" in said)


def test_a_damaged_history_is_set_aside_and_said(history: Path):
    history.write_bytes(b"no database" * 100)
    app = visit()
    assert "is kept as" in told(app)
    assert list(app.dataframe[0].value["of"]) == ["reference"]


def test_a_history_that_cannot_be_opened_leaves_what_ships(
    history: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ATTNSCOPE_HISTORY", "mysql://host/runs")
    app = visit()
    assert "cannot be kept in mysql" in told(app)
    assert list(app.dataframe[0].value["of"]) == ["reference"]
