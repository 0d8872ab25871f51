"""A vision transformer in the worker: what is kept of a picture, and what each page is answered about it."""

from pathlib import Path
from typing import Any

import pytest

from attnscope.app.jobs import check_work, work
from attnscope.app.jobs.answers import ASKS
from attnscope.app.jobs.context import Context
from attnscope.kernels import registry
from attnscope.kernels.errors import ModelUnsupported
from attnscope.kernels.registry import backend
from tests.app.checked import CHECK, context_in
from tests.models.vision import CLASSES, save_tiny


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny("vit", tmp_path_factory.mktemp("vit")))


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return context_in(tmp_path)


def inspected(source: str, context: Context) -> dict[str, Any]:
    return work.inspect({"source": source, "texts": ["x"], "values": True}, context)


def test_a_picture_is_told_by_its_patches(source: str, context: Context) -> None:
    told = inspected(source, context)
    assert told["model"]["reads_pictures"]
    assert not told["model"]["has_chat_template"]
    assert (told["summary"]["attention"], told["others"]) == ("self", {})
    (sequence,) = told["summary"]["sequences"]
    assert sequence["tokens"][:2] == ["<class>", "r1 c1"]
    assert (sequence["grid"], sequence["keys"]) == ((4, 4), None)
    assert sequence["picture"].startswith("data:image/png;base64,")
    assert sorted(name for name, _ in sequence["next_tokens"]) == list(CLASSES)
    found = ASKS["diagnostics"].answer({"capture": told["capture_id"]}, context)
    assert "induction" not in found["values"]
    assert "left out" in found["note"]


def test_backends_are_checked_on_a_picture(
    source: str, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = tuple(backend(name) for name in ("eager", "tiled", "sdpa_cudnn"))
    monkeypatch.setattr(registry, "BACKENDS", few)
    monkeypatch.setattr(check_work, "BUDGET_S", 0.2)
    offered = ASKS["check_offered"].answer(
        {"source": source, "revision": None, "device": "cpu", "dtype": "auto"}, context
    )
    assert (offered["layers"], offered["reads_pictures"]) == (2, True)
    check_work.check_backends(
        {"check": CHECK, "owner": "o", "source": source, "texts": ["x"]}, context
    )
    found = ASKS["check"].answer({"check": CHECK}, context)
    assert len(found["facts"]["tokens"][0]) == 17
    before, after = offered["backends"], found["results"]
    assert [each["name"] for each in before if each["reason"]] == ["sdpa_cudnn"]
    assert {each["name"]: each["verdict"] for each in after} == {
        "eager": "exact",
        "sdpa_cudnn": "refused",
        "tiled": "exact",
    }


@pytest.mark.parametrize(
    ("job", "given"),
    [
        ("sparsity_run", {"backend": "tiled", "new_tokens": 0, "timed": False, "run": "0" * 32}),
        ("positions", {"text": "hello"}),
    ],
)
def test_what_needs_a_text_says_so(
    job: str, given: dict[str, Any], source: str, context: Context
) -> None:
    capture = inspected(source, context)["capture_id"]
    asked = {"source": source, "capture": capture, "texts": ["x"], "sequence": 0, **given}
    with pytest.raises(ModelUnsupported, match="reads a picture"):
        work.WORK[job](asked, context)
