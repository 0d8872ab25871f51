from pathlib import Path

import pytest

from attnscope.app import examples
from attnscope.app.examples import example
from attnscope.app.prompts import typed
from attnscope.kernels.errors import PromptRefused


def test_the_shipped_prompts_are_usable() -> None:
    shipped = examples.examples()
    assert len(shipped) >= 3
    assert len({entry.title for entry in shipped}) == len(shipped)
    assert all(typed(entry.text).text == entry.text for entry in shipped)
    assert all(entry.title.isprintable() and entry.about for entry in shipped)


def test_an_empty_title_is_the_first_visit_s() -> None:
    shipped = examples.examples()
    assert example("") == shipped[0]
    assert example(shipped[1].title) == shipped[1]
    with pytest.raises(PromptRefused, match="not shipped"):
        example("<b>no such</b>")


def test_missing_examples_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(examples, "PATH", tmp_path / "none.json")
    with pytest.raises(PromptRefused, match="missing"):
        examples.examples()
