"""A generation as a job: its steps while it goes on, its rows from any thread, its capture at the end."""

from dataclasses import replace

import numpy as np
import pytest

from attnscope.app.jobs.answers import ASKS
from attnscope.app.jobs.work import WORK
from attnscope.app.views.inspect import View, encode, parse
from attnscope.kernels.errors import (
    CaptureMissing,
    CaptureTooLarge,
    InvalidCall,
    JobCancelled,
    JobMissing,
    PromptRefused,
)
from attnscope.models.capture import capture
from attnscope.models.loading import load
from tests.app.generated import GENERATION, TEXT, asked, context_in


@pytest.fixture(autouse=True)
def one_thread():
    import torch

    torch.set_num_threads(1)


def answer(context, method, **arguments):
    return ASKS[method].answer({"generation": GENERATION, **arguments}, context)


def row(context, **arguments):
    given = {"attention": "self", "layer": 2, "head": 3, "query": 9} | arguments
    return np.frombuffer(answer(context, "generation_row", **given)["body"], "<f4")


def test_steps_and_rows_are_there_while_it_goes_on_and_after(tmp_path):
    context, during = context_in(tmp_path), []

    def watch(progress):
        if progress.step.startswith("Token"):
            told = answer(context, "generation_live", after=0)
            query = told["steps"][-1]["query"]
            during.append((len(told["steps"]), told["ended"], row(context, query=query)))

    context.report = watch
    assert answer(context, "generation_live", after=0)["steps"] == []
    done = WORK["generate"](asked(), context)
    assert [(steps, ended) for steps, ended, _ in during] == [(at, None) for at in range(1, 6)]

    whole = answer(context, "generation_live", after=0)
    facts, steps = whole["facts"], whole["steps"]
    assert "".join(facts["tokens"]).endswith(TEXT)
    assert [sum(step["cache"]) for step in steps] == facts["predicted"]
    assert answer(context, "generation_live", after=whole["next"])["ended"] == {
        "capture": done["capture"]
    }

    # The oracle: the same text read in one pass.
    model = load("demo")
    text = TEXT + "".join(step["text"] for step in steps[:-1])
    shown = capture(model, text, backend="tiled")
    for step, (_, _, seen_live) in zip(steps, during, strict=True):
        weights = shown.row(2, 3, step["query"])[: step["query"] + 1]
        np.testing.assert_allclose(seen_live, weights, atol=1e-5)
        np.testing.assert_allclose(row(context, query=step["query"]), weights, atol=1e-5)
        assert sum(step["shares"]["self"][2][3]) == pytest.approx(1.0, abs=1e-3)
        assert step["shares"]["self"][2][3][4] == pytest.approx(weights[-1], abs=1e-4)
    of_heads = [row(context, query=9, head=head) for head in range(8)]
    np.testing.assert_allclose(row(context, query=9, head=-1), np.mean(of_heads, 0), atol=1e-6)


def test_what_was_read_opens_in_inspect(tmp_path):
    context = context_in(tmp_path)
    done = WORK["generate"](asked(decode="eager"), context)
    view = View(texts=(TEXT,), made=done["capture"])
    assert parse(encode(view))[0] == view
    assert view.capture_key != View(texts=(TEXT,)).capture_key
    inspected = {"source": "demo", "texts": [TEXT], "made": done["capture"]}
    opened = WORK["inspect"](inspected, context)
    assert (opened["capture_id"], opened["kept"]) == (done["capture"], True)
    assert opened["summary"]["backend"] == "eager, tiled"
    assert opened["summary"]["layers"][0]["pattern"]["key"] == "causal"
    assert len(opened["summary"]["sequences"][0]["tokens"]) == 9 + 4
    with pytest.raises(CaptureMissing, match="no longer kept"):
        WORK["inspect"](inspected | {"made": "f" * 32}, context)


def test_a_cancellation_keeps_what_was_said(tmp_path):
    context = context_in(tmp_path)

    def stop(progress):
        if progress.step.startswith("Token 2"):
            context.stop.set()

    context.report = stop
    with pytest.raises(JobCancelled):
        WORK["generate"](asked(), context)
    context.stop.clear()
    found = answer(context, "generation")
    assert 2 <= len(found["steps"]) <= 3
    assert row(context, query=found["steps"][-1]["query"]).sum() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"tokens": 3000}, PromptRefused, "Ask for at most 2,040"),
        ({"chat": True}, PromptRefused, "no chat template"),
        ({"texts": [TEXT, TEXT]}, InvalidCall, "One prompt is continued at a time"),
        ({"temperature": -1.0}, InvalidCall, "temperature must be 0 to 100"),
    ],
)
def test_what_cannot_be_continued_leaves_nothing(tmp_path, changes, error, words):
    context = context_in(tmp_path)
    with pytest.raises(error, match=words):
        WORK["generate"](asked(**changes), context)
    with pytest.raises(JobMissing, match="not on this server"):
        answer(context, "generation")


def test_the_servers_limit_is_stated_before_anything_runs(tmp_path):
    context = context_in(tmp_path)
    context.settings = replace(context.settings, capture_bytes=100_000)
    with pytest.raises(CaptureTooLarge, match="over the budget of 97"):
        WORK["generate"](asked(), context)


def test_rows_that_nobody_holds_say_so(tmp_path):
    context = context_in(tmp_path)
    WORK["generate"](asked(tokens=1), context)
    with pytest.raises(InvalidCall, match="no head 8"):
        row(context, query=3, head=8)
    with pytest.raises(InvalidCall, match="no layer 4"):
        row(context, query=3, layer=4)
    (tmp_path / "generations" / GENERATION / "end.json").unlink()
    with pytest.raises(CaptureMissing, match="not held here"):
        row(context, query=3)


def test_every_exact_backend_is_offered_for_each_phase(tmp_path):
    found = ASKS["generation_offered"].answer(asked(), context_in(tmp_path))
    for phase in ("prefill", "decode"):
        told = {each["name"]: each["reason"] for each in found[phase]}
        assert told["tiled"] == ""
        assert "GPU" in told["triton_decode"]
        assert "linear" not in told
    assert (found["max_length"], found["layers"]) == (2048, 4)
