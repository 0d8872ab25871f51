"""What the GPU benchmark calls right."""

from dataclasses import replace

import pytest
import torch

from attnscope.kernels.backends.tiled import Tiled
from attnscope.kernels.call import AttentionCall, AttentionOutput
from attnscope.kernels.reference import reference
from benchmarks.gpu import problem as module
from benchmarks.gpu.contenders import contender, judged
from benchmarks.gpu.errors import calls
from benchmarks.gpu.problem import problem, truth, verdict
from tests.inputs import Inputs

CPU = torch.device("cpu")
CALLS = calls(toy=True)
HARD = replace(CALLS[3], has_sinks=True, softcap=3.0)


@pytest.fixture
def asked() -> Inputs:
    return problem(HARD, CPU)


@pytest.mark.parametrize("call", [*CALLS, HARD], ids=str)
def test_the_truth_in_blocks_is_the_reference(call: AttentionCall, monkeypatch) -> None:
    asked = problem(call, CPU)
    exact = reference(*asked.tensors, call, **asked.extras)
    monkeypatch.setattr(module, "SCORES_AT_A_TIME", 5 * call.query_heads * call.key_length)
    true = truth(asked)
    torch.testing.assert_close(true.out_BHQD, exact.out_BHQD)
    torch.testing.assert_close(true.lse_BHQ, exact.lse_BHQ)
    assert true.theirs_BHQD.dtype == true.dense_BHQD.dtype == call.torch_dtype


def test_tensors_are_random_the_same_for_a_seed_and_never_zeros(asked: Inputs) -> None:
    again, other = problem(HARD, CPU), problem(HARD, CPU, seed=1)
    for mine, same, different in zip(asked.tensors, again.tensors, other.tensors, strict=True):
        assert torch.equal(mine, same)
        assert not torch.equal(mine, different)
        assert (mine != 0).any(-1).all()
    assert asked.visible_keys_BK is not None
    assert asked.visible_keys_BK.any(-1).all()
    assert not asked.visible_keys_BK.all(-1).any()


def test_a_right_answer_is_right_and_says_by_how_much_it_errs(asked: Inputs) -> None:
    said = judged(contender(Tiled(), asked), asked, truth(asked))
    assert not isinstance(said, str)
    assert said.right
    assert said.reason is None
    assert 0 < said.relative < 1e-2
    assert said.ratio > 0
    assert said.lse_error is not None


def answered(asked: Inputs) -> AttentionOutput:
    return contender(Tiled(), asked).run()


@pytest.mark.parametrize("wrong", [torch.nan, 0.5])
def test_one_wrong_number_is_wrong(asked: Inputs, wrong: float) -> None:
    answer = answered(asked)
    answer.out_BHQD[1, 1, 7, 3] = wrong
    said = verdict(answer, truth(asked))
    assert not said.right
    assert said.reason


def test_a_wrong_log_sum_exp_is_wrong(asked: Inputs) -> None:
    answer = answered(asked)
    assert answer.lse_BHQ is not None
    answer.lse_BHQ[0, 0, 20] += 0.1
    said = verdict(answer, truth(asked))
    assert not said.right
    assert said.lse_error == pytest.approx(0.1, rel=1e-2)


def test_whatever_keeps_a_backend_from_answering_is_told(asked: Inputs) -> None:
    candidate = replace(contender(Tiled(), asked), run=lambda: 1 / 0)  # pyright: ignore[reportArgumentType]
    said = judged(candidate, asked, truth(asked))
    assert said == "ZeroDivisionError: division by zero"
