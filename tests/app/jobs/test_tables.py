import subprocess
import sys
from pathlib import Path

import pytest

from attnscope.app.jobs.tables import Ask, Tables, named
from tests.app.jobs import fakes


def test_a_table_is_found_by_name():
    assert named("tests.app.jobs.fakes:WORK") is fakes.WORK


@pytest.mark.parametrize("path", ["no.such.module:WORK", "tests.app.jobs.fakes:NOTHING"])
def test_a_wrong_name_is_an_error(path):
    with pytest.raises((ImportError, AttributeError)):
        named(path)


def test_our_own_tables_exist_and_hold_what_the_pages_ask_for():
    tables = Tables()
    assert set(named(tables.work)) >= {"load", "plan", "inspect"}
    asks = named(tables.asks)
    assert set(asks) >= {
        "summary",
        "map",
        "exact_map",
        "row",
        "column",
        "overview",
        "diagnostics",
        "backends",
    }
    assert all(isinstance(ask, Ask) for ask in asks.values())
    assert callable(named(tables.prepare_worker))
    assert callable(named(tables.prepare_reader))


def test_reading_our_tables_imports_nothing_heavy():
    code = (
        "import sys; from attnscope.app.jobs.tables import Tables, named; t = Tables();"
        "[named(p) for p in (t.work, t.asks)];"
        "sys.exit(str([m for m in ('torch', 'transformers', 'streamlit') if m in sys.modules] or ''))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.strip() in {"", "[]"}, done.stderr
