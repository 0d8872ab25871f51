"""Swapping: live, per layer, restored whatever happens, refused by name where it cannot be done."""

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers as hf
from transformers import PreTrainedModel
from transformers.models.t5.modeling_t5 import T5Attention

from attnscope.kernels import registry
from attnscope.kernels.backends.flash_package import FlashPackage
from attnscope.kernels.errors import (
    AttnscopeError,
    ModelNotSwappable,
    UnknownBackend,
    UnsupportedCall,
)
from attnscope.models.loading import LoadedModel
from attnscope.models.swapping import NAME, LayerCall, attention_layers, swapped
from tests.kernels.backends.flash_fakes import install
from tests.tolerance import assert_as_good_as

IDS = torch.tensor([[5, 6, 7, 8, 5, 6]])

Family = Callable[[str], LoadedModel]


def _implementations(model: PreTrainedModel) -> list[str | None]:
    return [
        module.config._attn_implementation
        for module in model.modules()
        if isinstance(module, PreTrainedModel)
    ]


def _run(model: PreTrainedModel, **others: object) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, **others).logits


def test_every_call_arrives_and_is_named(tiny_family: Family) -> None:
    model = tiny_family("llama").model
    seen: list[LayerCall] = []
    with swapped(model, "tiled", seen.append) as swap:
        _run(model)
        _run(model)
        assert swap.calls == 2
    assert [call.layer for call in seen] == [0, 1, 0, 1]
    assert seen[1].name == "model.layers.1.self_attn"
    assert {call.backend for call in seen} == {"tiled"}
    assert seen[0].k_BGKD.shape == (1, 2, 6, 8)


def test_a_mark_is_held_open_around_each_backend_and_nothing_else(tiny_family: Family) -> None:
    model = tiny_family("llama").model
    log: list[object] = []

    @contextmanager
    def around(layer: int, name: str) -> Iterator[None]:
        log.append((layer, name))
        yield
        log.append("closed")

    with swapped(model, {1: "tiled"}, lambda call: log.append(call.layer), around):
        _run(model)
    assert log == [(0, "eager"), "closed", 0, (1, "tiled"), "closed", 1]


def test_a_backend_by_layer(tiny_family: Family) -> None:
    model = tiny_family("llama").model
    seen: list[str] = []
    with swapped(model, {1: "tiled"}, lambda call: seen.append(call.backend)):
        _run(model)
    assert seen == ["eager", "tiled"]


PACKAGES = [one for one in registry.BACKENDS if isinstance(one, FlashPackage)]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_oss"])  # groups, softcap, sinks
def test_a_flash_attention_package_answers_for_a_model(
    tiny_family: Family, family: str, package: FlashPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, package)
    model: Any = copy.deepcopy(tiny_family(family).model).bfloat16()
    exact = _run(copy.deepcopy(model).float()).double()
    expected = _run(model)
    with swapped(model, package.name) as swap:
        assert_as_good_as(_run(model), exact, expected)
        assert swap.calls == 2
        new = model.generate(IDS, max_new_tokens=2, do_sample=False, pad_token_id=0)
    assert new.shape == (1, IDS.shape[1] + 2)


def test_everything_is_restored(tiny_family: Family) -> None:
    model = tiny_family("gemma2").model
    before, expected = _implementations(model), _run(model)
    hooks = len(model._forward_hooks), len(model._forward_pre_hooks)
    with swapped(model, "tiled"):
        assert set(_implementations(model)) == {NAME}
    assert _implementations(model) == before
    assert (len(model._forward_hooks), len(model._forward_pre_hooks)) == hooks
    assert torch.equal(_run(model), expected)


def test_everything_is_restored_after_an_exception(tiny_family: Family) -> None:
    model = tiny_family("llama").model
    before = _implementations(model)

    def stop(call: LayerCall) -> None:
        raise InterruptedError(str(call.layer))

    with pytest.raises(InterruptedError), swapped(model, "eager", stop):
        _run(model)
    assert _implementations(model) == before


def test_swaps_nest(tiny_family: Family) -> None:
    model = tiny_family("llama").model
    outer: list[int] = []
    inner: list[int] = []
    with swapped(model, "eager", lambda call: outer.append(call.layer)):
        with swapped(model, "tiled", lambda call: inner.append(call.layer)):
            _run(model)
        _run(model)
    assert (outer, inner) == ([0, 1], [0, 1])


def test_two_models_at_once(tiny_family: Family) -> None:
    first, second = tiny_family("llama").model, tiny_family("gpt2").model
    seen: list[str] = []
    with (
        swapped(first, "eager", lambda call: seen.append("first")),
        swapped(second, "tiled", lambda call: seen.append("second")),
    ):
        _run(second)
        _run(first)
    assert seen == ["second", "second", "first", "first"]


def test_unknown_backends_change_nothing(tiny_family: Family) -> None:
    model = tiny_family("llama").model
    before = _implementations(model)
    with pytest.raises(UnknownBackend, match="abacus"), swapped(model, {0: "abacus"}):
        pytest.fail("there is no such backend")
    assert _implementations(model) == before


def test_another_thread_is_told_to_wait(tiny_family: Family) -> None:
    model = tiny_family("llama").model
    told: list[str] = []

    def visit() -> None:
        try:
            _run(model)
        except AttnscopeError as error:
            told.append(str(error))

    with swapped(model):
        visitor = threading.Thread(target=visit)
        visitor.start()
        visitor.join(10)
    assert told
    assert "LoadedModel.lock" in told[0]


def test_generation_runs_with_its_cache(tiny_family: Family) -> None:
    model: Any = tiny_family("mistral").model
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    expected = model.generate(IDS, **options)
    seen: list[int] = []
    with swapped(model, "tiled", lambda call: seen.append(call.k_BGKD.shape[2])):
        ours = model.generate(IDS, **options)
    assert torch.equal(ours, expected)
    assert len(seen) == 16
    assert seen[-1] == model.config.sliding_window


def test_a_static_cache_is_read_from_its_first_key(tiny_family: Family) -> None:
    model: Any = tiny_family("llama").model
    options = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    expected = model.generate(IDS, **options)
    with swapped(model, "tiled"):
        ours = model.generate(IDS, cache_implementation="static", disable_compile=True, **options)
    assert torch.equal(ours, expected)


def test_a_dense_mask_from_outside_is_honoured(tiny_family: Family) -> None:
    model = tiny_family("llama").model
    seen = torch.ones(6, 6, dtype=torch.bool).tril()
    seen[3:, 1] = False
    mask = torch.where(seen, 0.0, torch.finfo(torch.float32).min)[None, None]
    expected = _run(model, attention_mask=mask)
    with swapped(model, "tiled"):
        ours = _run(model, attention_mask=mask)
    assert (ours - expected).abs().max() < 1e-4
    assert (ours - _run(model)).abs().max() > 1e-3


TINY: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 96,
}
NOT_SWAPPABLE = {
    "falcon": lambda: hf.FalconConfig(**TINY),
    "bloom": lambda: hf.BloomConfig(hidden_size=32, n_layer=2, n_head=4, vocab_size=96),
    "gptj": lambda: hf.GPTJConfig(
        n_embd=32, n_layer=2, n_head=4, rotary_dim=4, vocab_size=96, n_positions=64
    ),
    "deberta-v2": lambda: hf.DebertaV2Config(**TINY, intermediate_size=64),
}


@pytest.mark.parametrize("family", NOT_SWAPPABLE)
def test_models_that_cannot_be_swapped_say_so(family: str) -> None:
    config = NOT_SWAPPABLE[family]()
    loader = hf.AutoModelForMaskedLM if family == "deberta-v2" else hf.AutoModelForCausalLM
    model = loader.from_config(config).eval()
    before = _implementations(model)
    with pytest.raises(ModelNotSwappable, match=f"{family}.*Choose"), swapped(model):
        _run(model)
    assert _implementations(model) == before
    assert _run(model).isfinite().all()


def test_a_position_bias_that_is_none_by_distance_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = T5Attention.compute_bias

    def dearer_first_key(*given: Any, **named: Any) -> torch.Tensor:
        bias = right(*given, **named).clone()
        bias[..., 0] += 1.0
        return bias

    monkeypatch.setattr(T5Attention, "compute_bias", dearer_first_key)
    config = hf.T5Config(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, vocab_size=96)
    model = hf.T5ForConditionalGeneration(config).eval()
    with (
        pytest.raises(UnsupportedCall, match=r"t5 adds a bias.*position_bias.*no function of the"),
        swapped(model),
        torch.no_grad(),
    ):
        model(input_ids=IDS, decoder_input_ids=IDS)


def test_training_mode_is_refused(tiny_family: Family) -> None:
    model = tiny_family("gpt2").model.train()
    try:
        with pytest.raises(UnsupportedCall, match=r"model\.eval"), swapped(model):
            _run(model)
    finally:
        model.eval()


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (["full_attention", "sliding_attention"], 2),
        (["linear_attention", "full_attention", "conv"], 1),
        (None, 3),
    ],
)
def test_attention_layers_are_counted(kinds: list[str] | None, expected: int) -> None:
    text = SimpleNamespace(layer_types=kinds, num_hidden_layers=3)
    config = SimpleNamespace(get_text_config=lambda: text, is_encoder_decoder=False)
    assert attention_layers(config) == expected  # pyright: ignore[reportArgumentType]
