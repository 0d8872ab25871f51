"""The kernel in Gluon takes part only when a process of its own came back: hung, failed and sound ones."""

import sys
from dataclasses import replace

import pytest
import torch

from attnscope.kernels.triton.configurations import kernel_entry
from attnscope.kernels.triton.tuned import shipped_entries
from benchmarks.gpu import errors, forward, trial, tune
from benchmarks.gpu.problem import problem

CPU = torch.device("cpu")
CALL = errors.calls(toy=True)[0]


def outcome_of(program: str, seconds: float = 60) -> str | None:
    return trial.outcome_of([sys.executable, "-c", program], seconds)


def test_a_process_that_came_back_has_nothing_to_tell() -> None:
    assert outcome_of("print('causal: begins')") is None


def test_a_wait_without_end_is_ended_and_told_with_its_last_word() -> None:
    hang = "import threading; print('full: begins', flush=True); threading.Event().wait()"
    said = outcome_of(hang, seconds=2)
    assert said == "left out: a trial did not come back in 2 s, its last word was 'full: begins'"


def test_a_wrong_answer_and_a_crash_are_told() -> None:
    assert outcome_of("raise SystemExit('causal: error 3')") == (
        "left out: a trial failed: causal: error 3"
    )
    assert "ZeroDivisionError" in str(outcome_of("1 / 0"))


@pytest.mark.parametrize("plan", [errors, forward])
def test_without_a_hopper_the_record_says_why(plan) -> None:
    contenders, refused = trial.gluon_of(problem(plan.calls(toy=True)[0], CPU))
    assert contenders == []
    assert refused == {
        "triton_gluon": "it runs on Hopper alone, by its copy engine and matrix unit, and this is cpu"
    }


def test_on_a_hopper_it_takes_part_once_it_was_tried(monkeypatch) -> None:
    monkeypatch.setattr(trial, "is_hopper", lambda device: True)
    monkeypatch.setattr(trial, "capability_of", lambda device: (9, 0))
    monkeypatch.setattr(trial, "outcome", lambda: None)
    wide = problem(replace(CALL, head_dim=64, value_dim=64), CPU)
    (contender,), refused = trial.gluon_of(wide)
    assert (contender.name, refused) == ("triton_gluon", {})
    assert "heads are 64 or 128 wide" in trial.gluon_of(problem(CALL, CPU))[1]["triton_gluon"]
    monkeypatch.setattr(trial, "outcome", lambda: "left out: a trial failed: it hung")
    assert trial.gluon_of(wide) == ([], {"triton_gluon": "left out: a trial failed: it hung"})


def test_the_trial_is_of_every_width_and_rule_that_ships() -> None:
    tried = {(call.head_dim, call.pattern.key) for call in trial.calls()}
    assert len(tried) == 6
    for call in trial.calls():
        # More blocks than multiprocessors, none of them full at the end.
        assert call.batch * call.query_heads * -(-call.query_length // 128) > 3 * 132
        assert call.query_length % 128
        assert call.key_length % 64


def test_tuning_tries_the_cuts_that_fit() -> None:
    for entry in shipped_entries():
        if entry.kernel == "gluon":
            first, *others = tune.candidates(entry)
            assert first == entry
            assert {each.tiles for each in (first, *others)} == {(128, 64), (128, 128)}
            wide = [each.stages for each in (first, *others) if each.tiles == (128, 128)]
            # Three stages of 128 keys, 128 wide, are 256 KiB with the rest.
            assert (3 in wide) == (entry.width == 64)
    assert kernel_entry("gluon", 128, torch.bfloat16, (9, 0), "full") is not None
