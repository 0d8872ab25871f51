"""Capturing: what is held, within what budget, and how it is asked for."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch

from attnscope.kernels.errors import (
    CaptureTooLarge,
    InvalidCall,
    JobCancelled,
    ModelNotSwappable,
    UnknownBackend,
    UnsupportedCall,
)
from attnscope.models.capture import Capture, capture, default_budget, plan
from attnscope.models.loading import LoadedModel

Family = Callable[[str], LoadedModel]
PROMPT = "abcabcabc"


def _held(captured: Capture) -> int:
    """Bytes of every distinct memory a capture keeps alive."""
    kept = {}
    for layer in captured.layers:
        tensors = (layer.q_BHQD, layer.k_BGKD, layer.lse_BHQ, layer.value_norm_BGK)
        for tensor in (*tensors, layer.sinks_H, layer.visible_keys_BK, layer.v_BGKD):
            if tensor is not None:
                storage = tensor.untyped_storage()
                kept[storage.data_ptr()] = storage.nbytes()
    return sum(kept.values())


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_oss", "deepseek_v3", "bert"])
@pytest.mark.parametrize("backend", ["eager", "tiled"])
@pytest.mark.parametrize("values", [False, True])
def test_bytes_are_those_said_before_and_after(
    tiny_family: Family, family: str, backend: str, values: bool
) -> None:
    model = tiny_family(family)
    captured = capture(model, PROMPT, backend=backend, values=values)
    assert (captured.layers[0].v_BGKD is not None) == values
    assert captured.nbytes == plan(model, [len(PROMPT)], values=values).total_bytes
    assert captured.nbytes == _held(captured)


def test_bytes_with_padding_are_never_more_than_planned(tiny_family: Family) -> None:
    model = tiny_family("gemma2")
    captured = capture(model, [PROMPT, "ab"])
    planned = plan(model, [len(PROMPT), 2])
    assert captured.nbytes <= planned.total_bytes
    assert captured.nbytes == _held(captured)


def test_little_is_held_beside_q_k_and_log_sum_exp(tiny_family: Family) -> None:
    captured = capture(tiny_family("llama"), PROMPT * 4, backend="tiled")
    layers = captured.layers
    least = sum(one.q_BHQD.nbytes + one.k_BGKD.nbytes + one.lse_BHQ.nbytes for one in layers)
    assert captured.nbytes <= 1.1 * least


def test_the_budget_is_kept_before_anything_runs(
    tiny_family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_family("llama")
    planned = plan(model, [len(PROMPT)])
    monkeypatch.setattr(model.model, "forward", lambda *_a, **_k: pytest.fail("it ran"))
    with pytest.raises(CaptureTooLarge, match="1 layers fit") as caught:
        capture(model, PROMPT, byte_budget=planned.total_bytes - 1)
    assert "over the budget" in caught.value.message
    with pytest.raises(CaptureTooLarge, match="0 layers fit"):
        capture(model, PROMPT, byte_budget=10)


def test_a_budget_that_just_fits_is_enough(tiny_family: Family) -> None:
    model = tiny_family("llama")
    planned = plan(model, [len(PROMPT)], layers=[1])
    captured = capture(model, PROMPT, layers=[1], byte_budget=planned.total_bytes)
    assert [layer.layer for layer in captured.layers] == [1]
    assert planned.fitting(planned.total_bytes) == 1


@pytest.mark.parametrize("backend", ["eager", "sdpa_math", "tiled"])
def test_rows_of_a_16_bit_model_sum_to_one(tiny_family: Family, backend: str) -> None:
    tiny = tiny_family("llama")
    model = copy.deepcopy(tiny.model).bfloat16()
    for weights in model.parameters():
        weights.data *= 2  # larger scores round more
    half = LoadedModel.of(model, tiny.tokenizer, source="half")
    captured = capture(half, PROMPT, backend=backend)
    rows = captured.tile(1, 0).sum(-1)
    np.testing.assert_allclose(rows, 1, atol=1e-4)


def test_the_backends_told_are_those_that_ran(tiny_family: Family) -> None:
    captured = capture(tiny_family("llama"), PROMPT, backend={0: "tiled"})
    assert captured.backend == "eager, tiled"


def test_the_default_budget_is_half_of_what_is_left() -> None:
    assert 0 < default_budget(torch.device("cpu")) < 1 << 50


@pytest.mark.parametrize("layers", [[], [2], [-1], [0, 7]])
def test_layers_that_do_not_exist(tiny_family: Family, layers: list[int]) -> None:
    with pytest.raises(InvalidCall, match="layers 0 to 1"):
        capture(tiny_family("llama"), PROMPT, layers=layers)


def test_a_backend_by_layer_is_said(tiny_family: Family) -> None:
    captured = capture(tiny_family("llama"), PROMPT, backend={0: "tiled"})
    assert [layer.backend for layer in captured.layers] == ["tiled", "eager"]


def test_an_unknown_backend(tiny_family: Family) -> None:
    with pytest.raises(UnknownBackend):
        capture(tiny_family("llama"), PROMPT, backend="abacus")


def test_a_refusal_is_the_backends_own(tiny_family: Family) -> None:
    with pytest.raises(UnsupportedCall) as caught:
        capture(tiny_family("gemma2"), PROMPT, backend="sdpa_flash")
    assert caught.value.remedy


def test_progress_counts_layers(tiny_family: Family) -> None:
    model = tiny_family("llama")
    plan(model, [1])
    seen: list[tuple[float, str]] = []
    capture(model, PROMPT, progress=lambda *step: seen.append(step))
    assert seen == [(0.0, "layer 1 of 2"), (0.5, "layer 2 of 2"), (1.0, "layer 2 of 2")]


def test_progress_cancels_and_leaves_the_model_whole(tiny_family: Family) -> None:
    model = tiny_family("llama")
    before = capture(model, PROMPT).tile(1, 0)

    def cancel(share: float, step: str) -> None:
        raise JobCancelled(f"{share} {step}")

    with pytest.raises(JobCancelled):
        capture(model, PROMPT, progress=cancel)
    assert model.model.config._attn_implementation == "eager"
    assert (capture(model, PROMPT).tile(1, 0) == before).all()


def test_ids_serve_as_a_prompt(tiny_family: Family) -> None:
    model = tiny_family("llama")
    ids = model.tokenizer(PROMPT)["input_ids"]
    by_text, by_ids = capture(model, PROMPT), capture(model, input_ids=torch.tensor(ids))
    assert (by_text.tile(1, 2) == by_ids.tile(1, 2)).all()
    assert by_ids.texts == (PROMPT,)


def test_a_model_that_cannot_be_swapped_is_refused_by_plan(
    tiny_family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_family("qwen2")
    monkeypatch.setattr(model.model.config, "layer_types", ["full_attention"] * 3, raising=False)
    with pytest.raises(ModelNotSwappable, match="only 2 of its 3"):
        plan(model, [4])
