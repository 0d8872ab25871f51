"""Encoder-decoders in the worker: what a job keeps, and what is answered of each kind of attention."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attnscope.app.jobs import answers, work
from attnscope.app.jobs.context import Context, Resources
from attnscope.app.jobs.profile_plan import profile_plan
from attnscope.app.kept.pictures import KeptPictures
from attnscope.app.prompts.examples import examples_for, shipped_picture
from attnscope.app.settings import Settings
from attnscope.kernels.errors import InvalidCall, ModelUnsupported, PromptRefused


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(
        settings=Settings(data=tmp_path),
        device="cpu",
        resources=Resources(),
        report=lambda _: None,
    )


def inspected(context: Context, source: str, **given: Any) -> dict[str, Any]:
    asked = {"source": source, "texts": ["hello there"], "backend": "tiled", **given}
    return work.inspect(asked, context)


def test_a_pair_is_told_side_by_side(context: Context) -> None:
    result = inspected(context, "copying", targets=["hello"])
    cross = result["summary"]
    assert (cross["attention"], cross["attentions"]) == ("cross", ["cross", "decoder", "encoder"])
    assert set(result["others"]) == {"decoder", "encoder"}
    sequence = cross["sequences"][0]
    assert sequence["tokens"] == ["<begin>", *"hello"]
    assert sequence["keys"]["tokens"] == [*"hello there", "⏎"]
    encoder = result["others"]["encoder"]["sequences"][0]
    assert (encoder["tokens"], encoder["keys"]) == (sequence["keys"]["tokens"], None)
    assert result["model"]["kind"] == "encoder-decoder"


def test_every_answer_is_of_the_attention_asked_about(context: Context) -> None:
    capture = {"capture": inspected(context, "copying", targets=["hello"])["capture_id"]}
    lengths = {"cross": (6, 12), "decoder": (6, 6), "encoder": (12, 12)}
    for attention, (queries, keys) in lengths.items():
        asked = {**capture, "attention": attention}
        header = answers.attention_map({**asked, "encoding": "f32"}, context)["header"]
        assert (header["rows"], header["cols"]) == (queries, keys)
        assert answers.row({**asked, "query": 5}, context)["header"]["length"] == keys
        assert answers.column({**asked, "key": 5}, context)["header"]["length"] == queries
        assert answers.overview(asked, context)["header"]["shape"] == [1, 1, queries, keys]
        found = answers.diagnostics(asked, context)
        assert ("induction" in found["values"]) == (attention != "cross")
        assert ("left out" in found["note"]) == (attention == "cross")
    # None named is the first, and what there is not is refused.
    first = answers.attention_map({**capture, "encoding": "f32"}, context)
    weights = np.frombuffer(first["body"], "<f4").reshape(6, 12)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)
    with pytest.raises(InvalidCall, match="no self attention"):
        answers.summary({**capture, "attention": "self"}, context)


def test_what_a_model_does_not_read_decides_nothing(context: Context) -> None:
    plain = inspected(context, "demo")["capture_id"]
    assert inspected(context, "demo", targets=["x"], picture="0" * 32)["capture_id"] == plain
    said = inspected(context, "copying")["capture_id"]
    assert inspected(context, "copying", targets=["hello"])["capture_id"] != said


def test_a_picture_is_the_uploaded_one_or_the_example_s(context: Context) -> None:
    first = inspected(context, "picture-copying")
    tokens = first["summary"]["sequences"][0]["tokens"]
    assert tokens == ["<begin>", " red", " green", " blue", " yellow", " black"]
    keys = first["summary"]["sequences"][0]["keys"]
    assert keys["grid"] == (1, 8)
    assert first["others"]["encoder"]["sequences"][0]["picture"] == keys["picture"]
    other = examples_for("picture-copying")[1].picture
    second = inspected(context, "picture-copying", shipped_picture=other)
    assert len(second["summary"]["sequences"][0]["tokens"]) == 9
    kept = KeptPictures(context.settings.pictures_folder)
    name = kept.keep(shipped_picture(other).read_bytes())
    uploaded = inspected(context, "picture-copying", picture=name)
    assert uploaded["summary"]["sequences"][0] == second["summary"]["sequences"][0]
    with pytest.raises(PromptRefused, match="not kept here"):
        inspected(context, "picture-copying", picture="f" * 32)


def test_other_pages_refuse_with_a_sentence(context: Context) -> None:
    plan = {"source": "copying", "revision": None, "dtypes": ["float32"], "backends": ["eager"]}
    plan |= {"lengths": [8], "batches": [1], "phases": ["prefill"], "force": False}
    with pytest.raises(ModelUnsupported, match="copying is an encoder-decoder"):
        profile_plan(plan, context)
    with pytest.raises(ModelUnsupported, match="reads a picture"):
        profile_plan({**plan, "source": "picture-copying"}, context)
