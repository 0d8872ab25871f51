"""A model's positions are found once, kept, and refused in a sentence."""

from pathlib import Path

import pytest

from attnscope.app.jobs.answers import ASKS
from attnscope.app.jobs.context import Context, Resources
from attnscope.app.jobs.work import WORK
from attnscope.app.settings import Settings
from attnscope.kernels.errors import ModelError

ASKED = {"source": "demo", "revision": None, "text": "Mara found the silver key."}


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(settings=Settings(data=tmp_path), device="cpu", resources=Resources())


def test_what_was_found_of_a_model_is_found_again(context: Context) -> None:
    ask = ASKS["positions_found"].answer
    assert ask(ASKED, context) == {"found": None}
    found = WORK["positions"](ASKED, context)
    assert found["kinds"] == ["rope"]
    assert "turn 64 dimensions" in found["evidence"]
    (curve,) = found["curves"].values()
    assert (found["distances"][0], curve[0]) == (0, pytest.approx(1))
    assert [each["layer"] for each in found["layers"]] == [0, 2, 3]
    for layer in found["layers"]:
        shape = [len(layer["scores"]), len(layer["scores"][0])]
        assert shape == [8, found["tokens"]] == [8, len(layer["distances"])]
        assert [len(layer["parts"]), len(layer["parts"][0])] == shape
    assert ask(ASKED, context) == {"found": found}
    assert ask({**ASKED, "text": "Another."}, context) == {"found": None}


def test_a_model_that_is_none_is_told(context: Context, tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        WORK["positions"]({**ASKED, "source": str(tmp_path / "nothing")}, context)
