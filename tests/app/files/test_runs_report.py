"""The report of runs is one inert page that tells each of them, and those that were ticked whole."""

from dataclasses import replace

from attnscope.app.files.offline import LARGEST_REPORT
from attnscope.app.files.runs_report import runs_report
from attnscope.profiling.store_rows import row_of
from tests.profiling.records import FAILED, MODEL, RECORD

PAYLOAD = "<img src=x onerror=alert(1)>"
LONGER = replace(RECORD, cell=replace(RECORD.cell, length=512))


def test_runs_that_were_ticked_are_told_whole_and_side_by_side():
    records = [RECORD, LONGER]
    page = runs_report([row_of(record) for record in records], records).decode()
    assert "default-src 'none'" in page
    for words in (RECORD.id, LONGER.id, "Side by side", "no GPU", "2.13.0"):
        assert words in page
    assert "different numbers of tokens" in page


def test_runs_that_are_listed_are_told_in_a_row_each_and_nothing_of_them_acts():
    evil = replace(RECORD, model=replace(MODEL, title=PAYLOAD, source=PAYLOAD))
    rows = [row_of(evil, PAYLOAD), row_of(FAILED)]
    page = runs_report(rows, []).decode()
    assert PAYLOAD not in page
    assert "out of memory: needs 7 GiB" in page
    assert "Side by side" not in page


def test_as_many_as_the_page_lists_fit():
    rows = [
        row_of(replace(RECORD, cell=replace(RECORD.cell, length=at + 1)), "a" * 80)
        for at in range(500)
    ]
    assert len(runs_report(rows, [])) <= LARGEST_REPORT
