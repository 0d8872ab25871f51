"""What the candidates change of a model: measured on a prompt, kept, and quoted by the adviser."""

from pathlib import Path

import pytest

from attnscope.app.jobs import advice_errors
from attnscope.app.jobs.advice_answers import advice
from attnscope.app.jobs.advice_errors import errors_found, measure_errors
from attnscope.app.jobs.context import Context, Resources
from attnscope.app.settings import Settings
from attnscope.app.words import advice as advice_words
from attnscope.kernels.errors import JobCancelled, ModelUnsupported, PromptRefused
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.models.loading import load
from attnscope.models.shipped import SHIPPED
from attnscope.models.sparse_run import run_sparse
from attnscope.profiling.output_errors import Way, output_errors

TEXT = " ".join(["Mara found the silver key. Later Mara found the silver"] * 12)
ASKED = {
    "model": str(SHIPPED["demo"].folder),
    "device": "RTX 4090",
    "length": 2048,
    "batch": 1,
    "dtype": "bfloat16",
    "phase": "prefill",
    "free_bytes": None,
    "tolerated": 1.0,
    "workload": "document",
    "text": TEXT,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def context(folder: Path) -> Context:
    return Context(settings=Settings(data=folder), device="cpu", resources=Resources())


@pytest.fixture(scope="module")
def measured(folder: Path) -> dict:
    made = Context(settings=Settings(data=folder), device="cpu", resources=Resources())
    before = advice(ASKED, made)
    assert all(each["exact"] for each in before["ranked"])
    assert before["unknown"] > 20
    assert "nobody has measured" in " ".join(advice_words.lines(before))
    return measure_errors(ASKED, made)


def test_errors_and_losses_are_those_of_the_engines(measured: dict) -> None:
    model = load("demo", device="cpu")
    ids = model.tokenizer(TEXT)["input_ids"]
    assert measured["tokens"] == len(ids) < 256
    window = pattern("sliding_window", window=64)
    alone = output_errors(model, ids, {"": Way(backend="tiled", pattern=window)})[""]
    assert measured["errors"]["sliding_window:64"] == pytest.approx(alone.relative)
    ran = run_sparse(model, input_ids=ids, patterns=window)
    assert measured["losses"]["sliding_window:64"] == pytest.approx(
        [ran.loss.before, ran.loss.after]
    )
    assert {"linear", "performer", "chunked:128"} <= set(measured["errors"])
    # It hides nothing in a text so short, and would seem to cost nothing.
    assert "sliding_window:256" not in measured["errors"]


def test_the_adviser_quotes_them_of_that_model_alone(measured: dict, context: Context) -> None:
    assert errors_found(ASKED, context) == measured
    found = advice(ASKED, context)
    known = {each["key"]: each for each in found["ranked"] if not each["exact"]}
    assert set(known) == {key for key, error in measured["errors"].items() if error <= 1}
    window = known["sliding_window:64"]
    assert window["error"] == measured["errors"]["sliding_window:64"]
    assert window["loss"] == measured["losses"]["sliding_window:64"]
    said = " ".join(advice_words.lines(found))
    assert f"over {measured['tokens']} tokens" in said
    assert "→" in " ".join(cell for row in advice_words.rows(found["ranked"]) for cell in row)
    other = advice({**ASKED, "model": "gpt2"}, context)
    assert other["judged"] is None
    assert all(each["exact"] for each in other["ranked"])


def test_the_many_are_told_by_their_families(measured: dict, context: Context) -> None:
    del measured
    found = advice({**ASKED, "tolerated": 0.0}, context)
    assert len(advice_words.leaders(found)) == len(found["ranked"])
    rows = advice_words.left_out(found)
    assert len(rows) < len(found["excluded"]) / 3
    told = next(reason for _, reason in rows if "exactness is demanded" in reason)
    assert "sliding window (4)" in told
    narrow = advice({**ASKED, "tolerated": 0.01}, context)
    reasons = dict(advice_words.left_out(narrow))
    assert any("they change the output by" in reason for reason in reasons.values())
    wide = advice(ASKED, context)
    families = [each["family"] for each in advice_words.leaders(wide)]
    assert len(families) == len(set(families)) == len({e["family"] for e in wide["ranked"]})


def test_another_prompt_replaces_what_was_kept_and_another_length_joins_it(
    measured: dict, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advice_errors, "_LOSSES_S", -1.0)
    measure_errors({**ASKED, "length": 512}, context)
    joined = errors_found(ASKED, context)
    assert joined is not None
    assert joined["errors"].keys() > measured["errors"].keys()
    assert joined["losses"] == measured["losses"]
    measure_errors({**ASKED, "text": "Another text, and a short one."}, context)
    replaced = errors_found(ASKED, context)
    assert replaced is not None
    assert replaced["tokens"] < 32
    assert "sliding_window:64" not in replaced["errors"]


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        pytest.param({"model": "llama-3.1-8b"}, ModelUnsupported, "without weights", id="config"),
        pytest.param({"text": ""}, PromptRefused, "empty", id="no text"),
    ],
)
def test_what_cannot_be_measured_is_told(
    changed: dict, error: type[Exception], words: str, context: Context
) -> None:
    with pytest.raises(error, match=words):
        measure_errors({**ASKED, **changed}, context)


def test_it_is_cancelled_between_two_steps(context: Context) -> None:
    context.stop.set()
    with pytest.raises(JobCancelled):
        measure_errors(ASKED, context)
