"""The committed copying models say their source back, and read the right place of it for each token."""

from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image

from attnscope.kernels.errors import PromptRefused
from attnscope.models.capture import Capture, capture
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
    row_of_squares,
    text_batch,
)
from attnscope.models.copying_training import TASKS, Plan, main, train
from attnscope.models.loading import LoadedModel, load
from attnscope.models.shipped import SHIPPED

SOURCES = 12
RANDOM = Random(20_261)
TEXTS = ["".join(RANDOM.choices(LETTERS[:26], k=length)) for length in range(1, 25, 2)]
ROWS = [RANDOM.choices(list(COLOURS), k=1 + at % SQUARES) for at in range(SOURCES)]


NAMES: dict[Task, str] = {"text": "copying", "image": "picture-copying"}


@pytest.fixture(scope="module")
def models() -> dict[Task, LoadedModel]:
    return {task: load(name, device="cpu") for task, name in NAMES.items()}


def copied(models: dict[Task, LoadedModel], task: Task, backend: str = "eager") -> list[Capture]:
    if task == "text":
        found = [capture(models[task], text, backend=backend) for text in TEXTS]
    else:
        found = [capture(models[task], picture=squares(row), backend=backend) for row in ROWS]
    return [one.of("cross") for one in found]


def squares(row: list[str]) -> Image.Image:
    return Image.fromarray(row_of_squares(row).numpy())


def said(one: Capture) -> list[str]:
    """What each query says: what the next has read, and last the likeliest token."""
    assert one.next_tokens is not None
    return [token.strip(" ") or token for token in (*one.tokens[0][1:], one.next_tokens[0][0][0])]


@pytest.mark.parametrize("task", ["text", "image"])
def test_each_token_reads_the_place_it_copies(models: dict[Task, LoadedModel], task: Task) -> None:
    found = copied(models, task)
    sources = TEXTS if task == "text" else ROWS
    assert [said(one) for one in found] == [[*source, "⏎"] for source in sources]
    # A vision encoder's first place stands for the whole picture.
    first = 0 if task == "text" else 1
    for head in range(found[0].layers[0].q_BHQD.shape[1]):
        masses = [
            one.tile(0, head)[: len(source), first:].diagonal().mean()
            for one, source in zip(found, sources, strict=True)
        ]
        assert np.mean(masses) >= 0.8


@pytest.mark.parametrize("backend", ["sdpa_flash", "tiled"])
@pytest.mark.parametrize("task", ["text", "image"])
def test_any_backend_reads_the_same(
    models: dict[Task, LoadedModel], task: Task, backend: str
) -> None:
    for one, other in zip(copied(models, task), copied(models, task, backend), strict=True):
        assert said(one) == said(other)
        np.testing.assert_allclose(one.tile(0, 0), other.tile(0, 0), atol=1e-5)


def test_the_weights_are_small_and_are_those_of_the_script_s_models(
    models: dict[Task, LoadedModel],
) -> None:
    folder = SHIPPED["copying"].folder.parent
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 2**20
    for task, (make, _, _) in TASKS.items():
        committed = models[task].model.state_dict()
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


def test_the_script_writes_what_is_loaded(tmp_path: Path) -> None:
    main(["--out", str(tmp_path), "--steps", "2"])
    text = capture(load(str(tmp_path / "text"), device="cpu"), "ab")
    assert text.encoded is not None
    assert text.encoded.tokens == (("a", "b", "⏎"),)
    image = capture(load(str(tmp_path / "image"), device="cpu"), picture=squares(["red"]))
    assert image.encoded is not None
    assert image.encoded.grid == (1, SQUARES)


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


@pytest.mark.parametrize(
    ("row", "words"),
    [([], "got 0"), (["red"] * 9, "got 9"), (["mauve"], "does not know the colour 'mauve'")],
)
def test_a_row_that_cannot_be_drawn_is_refused(row: list[str], words: str) -> None:
    with pytest.raises(PromptRefused, match=words):
        row_of_squares(row)
