from pathlib import Path

import pytest

from attnscope.app.kept.pictures import read_picture
from attnscope.app.prompts import examples
from attnscope.app.prompts.examples import example, examples_for, shipped_picture
from attnscope.app.prompts.uploads import typed
from attnscope.kernels.errors import PromptRefused


def test_the_shipped_prompts_are_usable() -> None:
    shipped = examples.examples()
    assert len(shipped) >= 3
    assert len({entry.title for entry in shipped}) == len(shipped)
    texts = [entry.text for entry in shipped if not entry.picture]
    assert all(typed(text).text == text for text in texts)
    assert all(entry.title.isprintable() and entry.about for entry in shipped)


def test_an_empty_title_is_the_first_visit_s() -> None:
    shipped = examples.examples()
    assert example("") == shipped[0]
    assert example(shipped[1].title) == shipped[1]
    with pytest.raises(PromptRefused, match="not shipped"):
        example("<b>no such</b>")


def test_a_model_has_its_own_examples() -> None:
    assert {entry.model for entry in examples_for("demo")} == {""}
    assert examples_for("someone/else") == examples_for("demo")
    for model in ("copying", "picture-copying"):
        own = examples_for(model)
        assert {entry.model for entry in own} == {model}
        assert example("", model) == own[0]
    assert shipped_picture() == shipped_picture(own[0].picture)
    for entry in own:
        assert read_picture(shipped_picture(entry.picture).read_bytes()).size == (64, 8)
    with pytest.raises(PromptRefused, match="not shipped"):
        shipped_picture("../../secret.png")


def test_missing_examples_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(examples, "PATH", tmp_path / "none.json")
    with pytest.raises(PromptRefused, match="missing"):
        examples.examples()
