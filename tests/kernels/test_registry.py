"""One walk over every backend: what it says of itself, what it refuses, and what it computes.

Those that approximate are held to their own definitions elsewhere, in tests/kernels/backends.
"""

import inspect
from dataclasses import replace

import pytest
import torch

from attnscope.kernels.backends.backend import Backend
from attnscope.kernels.errors import InvalidCall, UnknownBackend, UnsupportedCall
from attnscope.kernels.reference import reference
from attnscope.kernels.registry import BACKENDS, backend
from tests.shapes import BIAS_CASES, CASES, SPARSE_CASES, Case
from tests.tolerance import assert_as_good_as, pytorch_attention

CPU = torch.device("cpu")
# Compiling takes half a minute a kernel: FlexAttention has its own, slow tests.
COMPILED = ("flex",)

every_case_and_pattern = pytest.mark.parametrize(
    "case", [*CASES, *SPARSE_CASES, *BIAS_CASES], ids=lambda case: case.id
)
every_backend = pytest.mark.parametrize("found", BACKENDS, ids=lambda found: found.name)


@every_backend
def test_says_what_it_is(found: Backend) -> None:
    assert backend(found.name) is found
    assert found.title
    assert found.source.startswith("https://")
    assert inspect.getdoc(type(found))
    assert found.exact in (True, False)
    # A log-sum-exp is that of a softmax, which an approximation has none of.
    assert found.gives_lse in ((True, False) if found.exact else (False,))


def test_names_are_unique_and_unknown_ones_are_refused_with_the_list() -> None:
    names = [found.name for found in BACKENDS]
    assert len(set(names)) == len(names)
    with pytest.raises(UnknownBackend, match=f"No backend 'warp'. Use one of {', '.join(names)}"):
        backend("warp")


@every_backend
def test_refuses_a_device_it_cannot_use_and_says_what_to_do(found: Backend) -> None:
    call = replace(Case(id="causal").inputs("float64").call, softcap=2.0)
    refusal = found.refuses(call, torch.device("mps"))
    assert refusal is not None
    assert refusal.reason
    assert refusal.remedy.endswith(".")
    with pytest.raises(UnsupportedCall) as raised:
        found.check(call, torch.device("mps"))
    assert refusal.reason in str(raised.value)
    assert raised.value.remedy == refusal.remedy


@every_backend
@every_case_and_pattern
def test_costs_something(found: Backend, case: Case) -> None:
    cost = found.cost(case.inputs().call)
    assert cost.flops >= 0
    assert cost.bytes_read > 0
    assert cost.bytes_written > 0
    assert cost.workspace_bytes > 0
    assert "FLOP" in cost.formula


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "found",
    [found for found in BACKENDS if found.exact and found.name not in COMPILED],
    ids=lambda found: found.name,
)
@every_case_and_pattern
def test_agrees_with_the_reference_or_refuses(found: Backend, case: Case, dtype) -> None:
    inputs = case.inputs(dtype)
    if found.refuses(inputs.call, CPU) is not None:
        with pytest.raises(UnsupportedCall):
            found.run(*inputs.tensors, inputs.call, **inputs.extras)
        return
    exact = reference(*inputs.tensors, inputs.call, **inputs.extras)
    theirs, _ = pytorch_attention(*inputs.tensors, inputs.call, **inputs.extras)
    dense, dense_lse = pytorch_attention(*inputs.tensors, inputs.call, **inputs.extras, dense=True)
    answer = found.run(*inputs.tensors, inputs.call, **inputs.extras)
    # Eager rounds its scores to the dtype, as transformers does: it is held to PyTorch doing so.
    assert_as_good_as(answer.out_BHQD, exact.out_BHQD, dense if found.name == "eager" else theirs)
    assert (answer.lse_BHQ is not None) == found.gives_lse
    if answer.lse_BHQ is not None:
        assert_as_good_as(answer.lse_BHQ, exact.lse_BHQ, dense_lse)


def test_only_these_cases_are_refused_on_a_cpu() -> None:
    refused = {
        found.name: {case.id for case in CASES if found.refuses(case.inputs().call, CPU)}
        for found in BACKENDS
    }
    everything = {case.id for case in CASES}
    assert refused["eager"] == refused["tiled"] == set()
    assert refused["sdpa_efficient"] == refused["sdpa_cudnn"] == everything
    for on_gpus in ("triton", "triton_decode", "triton_block_sparse", "fa2", "fa3", "fa4"):
        assert refused[on_gpus] == everything
    assert refused["sdpa_flash"] == {
        "softcap",
        "everything at once",
        "value_dim under head_dim",
        "value_dim over head_dim",
    }
    with_sinks = {case.id for case in CASES if case.sinks}
    assert refused["sdpa_math"] == {"softcap"} | with_sinks
    gaps = {"window 1", "window 8", "window of a cache", "local 8", "local 1, more keys"}
    gaps |= {"local 8, causal", "sinks and window", "sinks and window, causal"}
    packed = {case.id for case in CASES if case.pattern.key == "packed"}
    unlike = gaps | with_sinks | packed | {"softcap"}
    assert refused["linear"] == refused["performer"] == unlike
    full = {case.id for case in CASES if case.pattern.key == "full"}
    assert refused["linformer"] == everything - (full - with_sinks)


@every_backend
def test_checks_the_tensors_before_anything_else(found: Backend) -> None:
    inputs = Case(id="causal").inputs()
    call = replace(inputs.call, query_length=32)
    with pytest.raises(InvalidCall, match=r"q must have shape \(1, 4, 32, 16\)"):
        found.run(*inputs.tensors, call)
