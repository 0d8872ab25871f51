"""The runs that ship: read once, in the order of their files, refused where one was changed."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from attnscope.kernels.errors import RecordUnreadable
from attnscope.profiling import reference_runs as shipped
from attnscope.profiling.record_files import to_lines
from tests.profiling.records import FAILED, RECORD


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    shipped.reference_runs.cache_clear()
    yield tmp_path
    shipped.reference_runs.cache_clear()


def test_they_come_in_the_order_of_their_files(folder: Path):
    other = replace(RECORD, seed=1)
    (folder / "b.jsonl").write_bytes(to_lines([other]))
    (folder / "a.jsonl").write_bytes(to_lines([RECORD, FAILED]))
    (folder / "README.md").write_text("not a run")
    assert shipped.reference_runs() == (RECORD, FAILED, other)


def test_none_is_no_error(folder: Path):
    folder.rmdir()
    assert shipped.reference_runs() == ()
    folder.mkdir()


def test_one_that_was_changed_is_refused(folder: Path):
    (folder / "a.jsonl").write_bytes(to_lines([RECORD]).replace(b"two cores", b"ten cores"))
    with pytest.raises(RecordUnreadable, match=r"Line 1 of a\.jsonl"):
        shipped.reference_runs()
