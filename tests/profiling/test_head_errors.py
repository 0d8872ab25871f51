"""Errors of heads against a dense calculation of the whole, and right backends, in which no head is wrong."""

import math
from dataclasses import replace

import pytest
import torch
import transformers as hf

from attnscope.kernels.backends.eager import Eager
from attnscope.kernels.errors import UnsupportedCall
from attnscope.kernels.reference import reference
from attnscope.models.loading import LoadedModel
from attnscope.models.swapping import LayerCall, swapped
from attnscope.profiling import exact_rows
from attnscope.profiling.exactness import FLOAT32_ERROR
from attnscope.profiling.head_errors import CELL_TIMES, LayerErrors, layer_errors
from tests.models.conftest import DECODERS, ENCODERS, FAMILIES, VOCABULARY, tiny, tiny_tokenizer
from tests.profiling.test_exact_rows import layer_call
from tests.shapes import CASES, Case

ERRING = [case for case in CASES if case.queries > 5 and case.keys >= case.queries]


def answered(case: Case) -> LayerCall:
    """A case with eager's answer, of which one cell of one head is off by a hundredth."""
    made, call = case.inputs("float32"), layer_call(case)
    out_BHQD = Eager().run(*made.tensors, made.call, **made.extras).out_BHQD
    out_BHQD[-1, 1, 5, 3] += 0.01
    return replace(call, out_BHQD=out_BHQD)


def spans(call: LayerCall) -> list[tuple[int, int]]:
    return [(0, call.q_BHQD.shape[2])] * call.q_BHQD.shape[0]


@pytest.mark.parametrize("case", ERRING, ids=[case.id for case in ERRING])
def test_errors_are_those_of_the_whole(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    made, call = case.inputs("float32"), answered(case)
    monkeypatch.setattr(exact_rows, "SCORES", 4 * case.query_heads * call.k_BGKD.shape[2])
    found = layer_errors(call, spans(call))
    exact_BHQD = reference(*made.tensors, made.call, **made.extras).out_BHQD
    error_BHQD = call.out_BHQD.double() - exact_BHQD
    for head in found.heads:
        ours, right = error_BHQD[:, head.head], exact_BHQD[:, head.head]
        assert head.relative == pytest.approx((ours.norm() / right.norm()).item())
        assert head.largest == pytest.approx(ours.abs().max().item())
        assert head.allowed == FLOAT32_ERROR
        assert (head.cell is not None) == (head.head == 1)
    cell, erring = found.heads[1].cell, found.heads[1]
    assert cell is not None
    assert (cell.sequence, cell.query, cell.channel) == (case.batch - 1, 5, 3)
    assert (erring.wrong_queries, erring.wrong_from, erring.wrong_to) == (1, 5, 5)
    assert cell.right == pytest.approx(exact_BHQD[-1, 1, 5, 3].item())
    assert cell.found == pytest.approx(cell.right + 0.01, abs=1e-5)
    assert found.wrong_rows == tuple(((case.batch - 1, 5),) if at == 1 else () for at in range(4))


def test_queries_that_are_padding_are_not_judged() -> None:
    call = answered(CASES[0])
    call.out_BHQD[:, 2, :3] = math.nan
    found = layer_errors(call, [(3, 33)])
    assert [head.head for head in found.heads if head.cell] == [1]
    assert found.heads[1].cell is not None
    assert found.heads[1].cell.query == 5 - 3


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_wrong_and_has_no_error(value: float) -> None:
    call = answered(CASES[0])
    call.out_BHQD[0, 2, 7, 4] = value
    head = layer_errors(call, spans(call)).heads[2]
    assert head.relative is None
    assert head.excess == math.inf
    assert head.cell is not None
    assert (head.cell.query, head.cell.channel, head.cell.found) == (7, 4, None)


def test_what_was_given_no_number_is_not_judged() -> None:
    call = answered(CASES[0])
    call.v_BGKD[:, 0] = math.nan
    first, second, third, _ = layer_errors(call, spans(call)).heads
    assert first.relative is first.cell is second.cell is None
    assert (first.excess, third.cell) == (0.0, None)
    assert third.relative is not None


def test_an_error_of_the_whole_is_wrong_though_no_cell_alone_is() -> None:
    call = answered(CASES[0])
    made = CASES[0].inputs("float32")
    exact = reference(*made.tensors, made.call)
    # All weights on values that cancel: rounding grows with the values, and the output does not.
    v_HKD = made.v_BGKD[0].double().repeat_interleave(2, 0)
    sizes_QD = exact.weights_BHQK[0, 3] @ v_HKD[3].abs()
    out_QD = exact.out_BHQD[0, 3] + 0.9 * CELL_TIMES * FLOAT32_ERROR * sizes_QD
    call.out_BHQD[0, 3] = out_QD.float()
    head = layer_errors(call, spans(call)).heads[3]
    assert head.relative is not None
    assert head.relative > FLOAT32_ERROR
    assert head.cell is not None
    assert (head.wrong_queries, head.wrong_from) == (0, None)


def model_of(family: str, dtype: torch.dtype) -> LoadedModel:
    decoder = family in DECODERS
    config = (DECODERS if decoder else ENCODERS)[family]()
    loader = hf.AutoModelForCausalLM if decoder else hf.AutoModelForMaskedLM
    model = tiny(config, loader)
    model.to(dtype)  # pyright: ignore[reportArgumentType]
    return LoadedModel.of(model, tiny_tokenizer("left"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_no_head_of_a_right_backend_is_wrong(family: str, dtype: torch.dtype) -> None:
    model = model_of(family, dtype)
    length, hidden = 40, 7
    ids_Bn = torch.randint(
        VOCABULARY, (2, length), generator=torch.Generator().manual_seed(len(family))
    )
    seen_Bn = torch.ones_like(ids_Bn)
    seen_Bn[1, :hidden] = 0
    ran = []
    for backend in ("eager", "sdpa_math", "sdpa_flash", "tiled"):
        found: list[LayerErrors] = []

        def judge(call: LayerCall, found: list[LayerErrors] = found) -> None:
            found.append(layer_errors(call, [(0, length), (hidden, length)]))

        try:
            with torch.no_grad(), swapped(model.model, backend, judge):
                model.model(input_ids=ids_Bn, attention_mask=seen_Bn)
        except UnsupportedCall:
            continue
        ran.append(backend)
        heads = [head for layer in found for head in layer.heads]
        assert len(heads) == 8
        assert [head for head in heads if head.cell is not None or head.excess > 1] == []
        assert max(head.excess for head in heads) > 0
    assert {"eager", "tiled"} <= set(ran)
