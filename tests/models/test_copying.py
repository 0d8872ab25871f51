"""The committed copying models say their source back, and read the right place of it for each token."""

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from attnscope.kernels.errors import AttnscopeError, InvalidCall, ModelNotFound, PromptRefused
from attnscope.models import copying
from attnscope.models.copying import (
    FOLDER,
    Copied,
    CopyingModel,
    copy_text,
    load_copying,
    name_squares,
)
from attnscope.models.copying_tasks import (
    COLOURS,
    END_ID,
    FIRST_ID,
    IGNORED,
    LETTERS,
    LONGEST_WORD,
    SIDE,
    SQUARES,
    Task,
    image_batch,
    letters_of,
    row_of_squares,
    text_batch,
)
from attnscope.models.copying_training import TASKS, Plan, main, train

SOURCES = 12
RANDOM = Random(20_261)
TEXTS = ["".join(RANDOM.choices(LETTERS[:26], k=length)) for length in range(1, 25, 2)]
ROWS = [RANDOM.choices(list(COLOURS), k=1 + at % SQUARES) for at in range(SOURCES)]


@pytest.fixture(scope="module")
def models() -> dict[Task, CopyingModel]:
    return {"text": load_copying("text"), "image": load_copying("image")}


def copied(models: dict[Task, CopyingModel], task: Task, backend: str = "eager") -> list[Copied]:
    if task == "text":
        return [copy_text(models[task], text, backend=backend) for text in TEXTS]
    return [name_squares(models[task], row, backend=backend) for row in ROWS]


@pytest.mark.parametrize("task", ["text", "image"])
def test_each_token_reads_the_place_it_copies(models: dict[Task, CopyingModel], task: Task) -> None:
    found = copied(models, task)
    sources = TEXTS if task == "text" else ROWS
    assert [one.said for one in found] == [(*source, "⏎") for source in sources]
    heads = range(found[0].capture.layers[0].q_BHQD.shape[1])
    for head in heads:
        masses = [one.capture.mass_on(0, head, one.right).mean() for one in found]
        assert np.mean(masses) >= 0.8
    for one in found:
        # The right key of every token says that token.
        assert [one.capture.source[key] for key in one.right] == list(one.said[: len(one.right)])


@pytest.mark.parametrize("backend", ["sdpa_flash", "tiled"])
@pytest.mark.parametrize("task", ["text", "image"])
def test_any_backend_reads_the_same(
    models: dict[Task, CopyingModel], task: Task, backend: str
) -> None:
    for one, other in zip(copied(models, task), copied(models, task, backend), strict=True):
        assert one.said == other.said
        np.testing.assert_allclose(one.capture.tile(0, 0), other.capture.tile(0, 0), atol=1e-5)


def test_the_weights_are_small_and_are_those_of_the_script_s_models() -> None:
    files = [file for file in FOLDER.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 2**20
    for task, (make, _, _) in TASKS.items():
        committed = load_copying(task).model.state_dict()
        shapes = {name: weight.shape for name, weight in make().state_dict().items()}
        assert {name: weight.shape for name, weight in committed.items()} == shapes


@pytest.mark.parametrize("task", TASKS)
def test_training_follows_from_its_plan_and_lowers_the_loss(task: Task) -> None:
    plan = Plan(steps=25, rows=16)
    (first, losses), (again, _) = train(task, plan), train(task, plan)
    weights = again.state_dict()
    assert all(torch.equal(one, weights[name]) for name, one in first.state_dict().items())
    assert np.mean(losses[-5:]) < losses[0]
    other, _ = train(task, Plan(steps=25, rows=16, seed=1))
    different = other.state_dict()
    assert any(not torch.equal(one, different[name]) for name, one in weights.items())


def test_the_script_writes_what_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main(["--out", str(tmp_path), "--steps", "2"])
    monkeypatch.setattr(copying, "FOLDER", tmp_path)
    assert copy_text(load_copying("text"), "ab").capture.source == ("a", "b", "⏎")
    squares = name_squares(load_copying("image"), ["red"]).capture
    assert squares.source == ("<class>", "red", *["white"] * (SQUARES - 1))


def test_batches_are_what_the_models_are_asked() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = set()
    for _ in range(200):
        batch = text_batch(2, generator)
        assert torch.equal(batch.inputs["input_ids"], batch.labels_BT)
        assert (batch.labels_BT[:, -1] == END_ID).all()
        lengths.add(batch.labels_BT.shape[1] - 1)
    assert lengths == set(range(1, LONGEST_WORD + 1))
    batch = image_batch(50, generator)
    for image, labels in zip(batch.inputs["pixel_values"], batch.labels_BT.tolist(), strict=True):
        count = labels.index(END_ID)
        assert set(labels[count + 1 :]) <= {IGNORED}
        names = [list(COLOURS)[one - FIRST_ID] for one in labels[:count]]
        expected = row_of_squares(names).permute(2, 0, 1) / 127.5 - 1
        torch.testing.assert_close(image, expected)
        assert image.shape == (3, SIDE, SIDE * SQUARES)


WRONG: list[tuple[Task, Any, type[AttnscopeError], str]] = [
    ("text", "", PromptRefused, "nothing to copy"),
    ("text", "  ", PromptRefused, "nothing to copy"),
    ("text", "a" * 25, PromptRefused, "has 25 letters; the model copies 24"),
    ("text", "naïve", PromptRefused, "not 'ï'"),
    ("image", [], PromptRefused, "got 0"),
    ("image", ["red"] * 9, PromptRefused, "got 9"),
    ("image", ["mauve"], PromptRefused, "does not know the colour 'mauve'"),
]


@pytest.mark.parametrize(("task", "source", "error", "words"), WRONG)
def test_a_source_that_it_cannot_read_is_refused(
    models: dict[Task, CopyingModel], task: Task, source: Any, error: Any, words: str
) -> None:
    read: Any = copy_text if task == "text" else name_squares
    with pytest.raises(error, match=words):
        read(models[task], source)


def test_the_other_model_and_a_missing_one_are_refused(
    models: dict[Task, CopyingModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidCall, match="the image model, and the text model was needed"):
        copy_text(models["image"], "ab")
    with pytest.raises(InvalidCall, match="No task 'speech'"):
        load_copying("speech")  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(copying, "FOLDER", tmp_path)
    with pytest.raises(ModelNotFound, match="missing from assets/copying"):
        load_copying("text")


def test_ids_that_say_nothing_are_named() -> None:
    assert letters_of([0, 1, 2, 3, 29, 99]) == ("<pad>", "<begin>", "⏎", "a", " ", "<id 99>")
