import sys

import pytest

from attnscope.app.commands.table import rich_modules, say_table

HEADER = ("name", "number", "to know")
ROWS = [("a", "1", "[bold]no markup"), ("long name", "12.5", "")]


def test_columns_line_up_and_numbers_stand_to_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    say_table("Title", HEADER, ROWS, right=(1,))
    assert capsys.readouterr().out.splitlines() == [
        "Title",
        "name       number  to know",
        "a               1  [bold]no markup",
        "long name    12.5",
    ]


def test_on_a_terminal_markup_is_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    say_table("Title", HEADER, ROWS, right=(1,))
    assert "[bold]no markup" in capsys.readouterr().out


def test_rich_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rich_modules("table") is not None
    monkeypatch.setitem(sys.modules, "rich.table", None)
    assert rich_modules("table") is None
