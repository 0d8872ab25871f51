"""The section `linear` of the GPU benchmark: its truth, who takes part, and what is said of them."""

import sys
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from torch import Tensor

from attnscope.kernels.backends.linear import Linear
from attnscope.kernels.backends.sdpa_flash import SdpaFlash
from attnscope.kernels.backends.tiled import Tiled
from attnscope.kernels.call import AttentionOutput
from attnscope.kernels.registry import BACKENDS
from benchmarks.gpu import linear, problem
from benchmarks.gpu.bench import compared
from tests.approximations import elu_plus_one, kernel_attention
from tests.benchmarks.test_gpu_run import CALL, bench
from tests.inputs import Inputs


def ours(asked: Inputs):
    return lambda: Linear().run(*asked.tensors, asked.call)


def test_its_truth_is_the_definition_in_however_many_blocks(monkeypatch) -> None:
    call = replace(linear.calls(toy=True)[0], dtype="float32")
    asked = problem.problem(call, torch.device("cpu"))
    expected = kernel_attention(asked, elu_plus_one, causal=True)
    for scores in (2**26, 48 * 2 * 5):
        monkeypatch.setattr(linear, "SCORES_AT_A_TIME", scores)
        true_BHQD, theirs_BHQD = linear.definition(asked)
        torch.testing.assert_close(true_BHQD, expected)
        torch.testing.assert_close(theirs_BHQD, expected.float())


def test_who_is_missing_is_named_with_the_reason() -> None:
    (record, *_) = linear.linear(bench(SdpaFlash(), Tiled(), seconds=1e9))
    assert list(record["backends"]) == ["sdpa_flash"]
    assert record["backends"]["sdpa_flash"]["ms"]["median"] == 1
    assert record["refused"]["triton_linear"].startswith("not run: compiled kernels need")
    assert record["refused"]["fla_chunk_linear"].startswith("not run: a toy run has no GPU")
    real = replace(bench(SdpaFlash(), seconds=1e9), toy=False)
    assert "flash-linear-attention is not installed" in str(linear._peer_missing(real))


def test_each_is_judged_by_its_own_definition_and_its_own_work(monkeypatch) -> None:
    monkeypatch.setattr(linear, "missing", lambda device: None)
    monkeypatch.setattr(linear, "_ours", ours)
    (record, *_) = linear.linear(bench(SdpaFlash(), seconds=1e9))
    found = record["backends"]
    assert found["triton_linear"]["right"]
    assert found["sdpa_flash"]["right"]
    assert (record["ours"], record["best_peer"]) == ("triton_linear", "sdpa_flash")
    # The planted clock gives every call one millisecond.
    flops = Linear().cost(linear.calls(toy=True)[0]).flops
    assert found["triton_linear"]["tflops"] == pytest.approx(flops / 1e-3 / 1e12)
    assert found["triton_linear"]["of_matmul"] == pytest.approx(flops / 1e-3 / 1e9)


@pytest.mark.parametrize("scale", [1.0, 1.1])
def test_the_peer_takes_part_where_it_is_installed(scale: float, monkeypatch) -> None:
    """A planted module in its place: the layout, the arguments, and that a wrong answer is told."""

    def chunk_linear_attn(q: Tensor, k: Tensor, v: Tensor, *, scale: float, normalize: bool):
        assert normalize
        weights = (torch.einsum("bqhd,bkhd->bhqk", q, k) * scale).tril().double()
        out = weights @ v.transpose(1, 2).double() / weights.sum(-1, keepdim=True)
        return out.transpose(1, 2).to(v.dtype) * wrong, None

    wrong = scale
    planted = ModuleType("fla.ops.linear_attn")
    vars(planted)["chunk_linear_attn"] = chunk_linear_attn
    monkeypatch.setitem(sys.modules, "fla.ops.linear_attn", planted)
    monkeypatch.setattr(linear, "_peer_missing", lambda bench: None)
    monkeypatch.setattr(linear, "missing", lambda device: None)
    monkeypatch.setattr(linear, "_ours", ours)
    (record, *_) = linear.linear(bench(seconds=1e9))
    found = record["backends"]["fla_chunk_linear"]
    assert found["right"] == (scale == 1.0)
    assert ("best_peer" in record) == found["right"]


def test_what_fails_is_told(monkeypatch) -> None:
    def broken(asked: Inputs):
        def run() -> AttentionOutput:
            raise torch.OutOfMemoryError("tried to allocate 99 GiB")

        return run

    monkeypatch.setattr(linear, "missing", lambda device: None)
    monkeypatch.setattr(linear, "_ours", broken)
    (record, *_) = linear.linear(bench(SdpaFlash(), seconds=1e9))
    found = record["backends"]["triton_linear"]
    assert found["reason"] == "OutOfMemoryError: tried to allocate 99 GiB"
    assert "ms" not in found


def test_no_other_section_judges_an_approximation_by_exact_attention() -> None:
    (record,) = compared(bench(*BACKENDS[:1], Linear()), [CALL], timed=False)
    assert list(record["backends"]) == ["eager"]
