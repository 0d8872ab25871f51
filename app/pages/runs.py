"""Runs: what was measured before? Find, open, compare, import, export."""

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import streamlit as st

from attnscope.app.components.model_bar import share
from attnscope.app.components.notice import control, notice
from attnscope.app.components.run_details import over_lengths, run_comparison, run_details
from attnscope.app.components.runs_table import runs_filters, runs_table
from attnscope.app.files.runs_report import runs_report
from attnscope.app.page_session import Notice
from attnscope.app.settings import Settings
from attnscope.app.state import Key
from attnscope.app.views.runs import RunsSession
from attnscope.app.words.runs import listed
from attnscope.kernels.errors import (
    AttnscopeError,
    HistoryDamaged,
    HistoryUnavailable,
    RecordUnreadable,
    RunMissing,
)
from attnscope.profiling.comparison import compare
from attnscope.profiling.record import RunRecord
from attnscope.profiling.record_files import (
    LARGEST_FILE,
    from_lines,
    from_parquet,
    to_csv,
    to_lines,
    to_parquet,
)
from attnscope.profiling.reference_runs import reference_runs
from attnscope.profiling.store import CHOICES, Store
from attnscope.profiling.store_rows import RunRow, row_of
from attnscope.profiling.units import count, nbytes

MOST_LISTED = 500
_READERS: dict[str, Callable[[bytes, str], tuple[RunRecord, ...]]] = {
    "jsonl": from_lines,
    "parquet": from_parquet,
}

_EMPTY = """
<section class="pg-empty">
  <h2>Nothing was measured here yet</h2>
  <p>Every run of the page <a href="/profile">Profile</a> and of <code>attnscope profile</code> is kept: samples,
  memory, the kernel that ran, and all that repeats it. Make the first ones there, or with</p>
  <pre>attnscope profile --model demo --backends eager,sdpa_flash,tiled --lengths 128,512</pre>
  <p>or bring a file of records of your own: Import, above.</p>
</section>
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelves:
    """Where runs are found.

    Attributes:
        own: The history; None while it cannot be used.
        reference: The runs that ship with Attnscope.
        notices: What every visitor must know of the history.
    """

    own: Store | None
    reference: Store
    notices: tuple[Notice, ...] = ()

    def get(self, run: str) -> RunRecord:
        """The record of an id, wherever it is.

        Raises:
            RunMissing: It is in neither.
        """
        try:
            return self.reference.get(run)
        except RunMissing:
            if self.own is None:
                raise
            return self.own.get(run)


def page(session: RunsSession) -> None:
    """Draw the page for one run of the script."""
    session.follow_url()
    shelves = _shelves()
    own = [] if shelves.own is None else [shelves.own]
    stores = {"all": [*own, shelves.reference], "own": own, "reference": [shelves.reference]}
    wanted = stores[session.view.whose]
    found = chain.from_iterable(
        store.find(session.view.filters, limit=MOST_LISTED) for store in wanted
    )
    rows = sorted(found, key=lambda row: row.created, reverse=True)[:MOST_LISTED]
    total = sum(store.count(session.view.filters) for store in wanted)
    _bar(session, shelves, rows)
    with st.container(key="told", gap="small"):
        for told in (*shelves.notices, *session.notices):
            notice(told)
    if not any(store.count() for store in stores["all"]):
        st.html(_EMPTY)
        return
    choices = {
        name: sorted({value for store in stores["all"] for value in store.choices()[name]})
        for name in CHOICES
    }
    runs_filters(
        choices,
        with_whose=bool(shelves.reference.count()),
        on_change=_act(session, session.take_filters),
    )
    if not rows:
        notice(Notice(kind="told", message="No run fits these filters."))
    else:
        _table(session, shelves, rows, total)
    _open(session, shelves, rows)


def _shelves() -> Shelves:
    place = str(Settings.from_environment().history_place)
    try:
        own = _history(place)
        own.count()
    except HistoryDamaged:
        # Opened anew, it is set aside; its own notice says where to.
        _history.clear()
        own = _history(place)
    except HistoryUnavailable as error:
        return Shelves(own=None, reference=_reference(), notices=(Notice.of(error),))
    notices = tuple(Notice(kind="failed", message=each) for each in own.notices)
    return Shelves(own=own, reference=_reference(), notices=notices)


@st.cache_resource(show_spinner=False, on_release=Store.close)
def _history(place: str) -> Store:
    return Store.open(place)


@st.cache_resource(show_spinner=False, on_release=Store.close)
def _reference() -> Store:
    return Store.holding(reference_runs())


def _bar(session: RunsSession, shelves: Shelves, rows: Sequence[RunRow]) -> None:
    own = "cannot be used" if shelves.own is None else count(shelves.own.count())
    shipped = shelves.reference.count()
    facts = [
        ("own runs", own),
        *([("reference runs", count(shipped))] if shipped else []),
        ("newest", rows[0].created[:16].replace("T", " ") if rows else "none"),
        ("models", count(len({row.model_title for row in rows}))),
        ("without figures", count(sum(not row.is_measured for row in rows))),
    ]
    items = "".join(
        f"<div><dt>{name}</dt><dd>{html.escape(value)}</dd></div>" for name, value in facts
    )
    with st.container(key="model_bar", horizontal=True, vertical_alignment="center", gap="small"):
        st.html(f'<dl class="pg-facts">{items}</dl>')
        with st.popover("Import", key="runs_import", disabled=shelves.own is None):
            st.file_uploader(
                f"Records as JSON Lines or Parquet, at most {nbytes(LARGEST_FILE)}",
                type=list(_READERS),
                key=Key.RUNS_UPLOAD,
                on_change=_act(session, partial(_import, session, shelves)),
                max_upload_size=LARGEST_FILE // 2**20,
            )
        with st.popover("Export", key="runs_export", disabled=not rows):
            _export(session, shelves, rows)
        share()


def _export(session: RunsSession, shelves: Shelves, rows: Sequence[RunRow]) -> None:
    chosen = [row for row in rows if row.id in session.view.runs] or rows
    kind = "ticked" if chosen is not rows else "listed"
    st.caption(f"{count(len(chosen))} run{'s' * (len(chosen) > 1)}, those {kind}")

    def records() -> list[RunRecord]:
        return [shelves.get(row.id) for row in chosen]

    writers: dict[str, Callable[[], bytes]] = {
        "JSON Lines": lambda: to_lines(records()),
        "Parquet": lambda: to_parquet(records()),
        "CSV": lambda: to_csv(chosen),
        # Only a few are told whole: their page is for reading.
        "Report, HTML": lambda: runs_report(chosen, records() if kind == "ticked" else []),
    }
    suffixes = ("jsonl", "parquet", "csv", "html")
    for (title, write), suffix in zip(writers.items(), suffixes, strict=True):
        st.download_button(
            title,
            write,
            file_name=f"runs.{suffix}",
            key=f"runs_export_{suffix}",
            on_click="ignore",
            width="stretch",
        )


def _import(session: RunsSession, shelves: Shelves) -> None:
    file = session.draft(Key.RUNS_UPLOAD)
    if file is None or shelves.own is None:
        return
    read = _READERS.get(Path(file.name).suffix.removeprefix("."))
    if read is None:
        raise RecordUnreadable(
            f"{file.name} is neither JSON Lines nor Parquet.",
            f"Its name ends with {' or '.join(f'.{ending}' for ending in _READERS)}.",
        )
    records = read(file.getvalue(), file.name)
    new = shelves.own.add_all(records, imported_from=file.name)
    known = len(records) - new
    said = f"Imported from {file.name}: {count(new)} new, {count(known)} known already."
    session.tell(Notice(kind="told", message=said))


def _table(session: RunsSession, shelves: Shelves, rows: Sequence[RunRow], total: int) -> None:
    reference = frozenset(row.id for row in shelves.reference.find())
    ids = [row.id for row in rows]

    def choose(key: str) -> None:
        ticked = [ids[at] for at in session.draft(key)["selection"]["rows"] if at < len(ids)]
        elsewhere = [run for run in session.view.runs if run not in ids]
        kept = [run for run in session.view.runs if run in ticked]
        session.choose(tuple(dict.fromkeys([*elsewhere, *kept, *ticked])))

    runs_table(
        listed(rows, reference),
        ids,
        session.view.runs,
        on_choose=lambda key: control(session, lambda: choose(key))(),
    )
    with st.container(key="runs_hint", horizontal=True, vertical_alignment="center", gap="small"):
        more = f"The newest {count(len(rows))} of {count(total)}: filter for others. "
        hint = "Tick one to open it, several to compare them."
        st.caption(f"{more if total > len(rows) else ''}{hint}")
        if not session.view.filters.is_empty or session.view.runs or session.view.whose != "all":
            st.button("Clear", key="runs_clear", type="tertiary", on_click=session.clear)


def _open(session: RunsSession, shelves: Shelves, rows: Sequence[RunRow]) -> None:
    records = []
    for run in session.view.runs:
        try:
            records.append(shelves.get(run))
        except AttnscopeError as error:
            notice(Notice.of(error))
    if len(records) > 1:
        # A run without figures is nothing to hold others against.
        records.sort(key=lambda record: record.failure is not None)
        run_comparison(compare(records), [row_of(record) for record in records])
    elif records:
        is_reference = records[0].id in {row.id for row in shelves.reference.find()}
        run_details(records[0], "a reference run, read-only" if is_reference else "")
    elif rows:
        over_lengths(rows, name="listed", title="Time and peak memory of the runs listed")


def _act(session: RunsSession, work: Callable[[], None]) -> Callable[[], None]:
    def told_anew() -> None:
        session.tell()
        work()

    return control(session, told_anew)
