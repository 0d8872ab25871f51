"""Shapes against the live models: parameters, calls and the cache, of a model that was really run."""

from collections.abc import Callable

import pytest
import torch
import transformers as hf
from transformers import DynamicCache, PreTrainedConfig

from attnscope.kernels.errors import ModelUnsupported
from attnscope.models import liveness
from attnscope.models.loading import LoadedModel
from attnscope.models.shape import ModelShape, config_of, rehearsed, shape_of
from attnscope.models.swapping import LayerCall, swapped
from tests.models.conftest import DECODERS, FAMILIES, WINDOW

MORE_DECODERS = {
    "mixtral": lambda: hf.MixtralConfig(
        **_sizes(), num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2
    ),
    "qwen3_moe": lambda: hf.Qwen3MoeConfig(
        **{**_sizes(), "head_dim": 8},
        num_key_value_heads=2,
        moe_intermediate_size=16,
        num_experts=4,
        num_experts_per_tok=2,
    ),
    "gpt_bigcode": lambda: hf.GPTBigCodeConfig(
        n_embd=32, n_layer=2, n_head=4, n_inner=64, n_positions=64, vocab_size=96
    ),
}


def _sizes() -> dict:
    return {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 96,
        "max_position_embeddings": 64,
    }


def _cached_bytes(cache: DynamicCache) -> tuple[int, int]:
    """Bytes of a cache's tensors, and of the memory that they keep."""
    tensors = [getattr(layer, name) for layer in cache.layers for name in ("keys", "values")]
    return (
        sum(tensor.nbytes for tensor in tensors),
        sum(tensor.untyped_storage().nbytes() for tensor in tensors),
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_and_weights_are_those_of_the_live_model(
    tiny_family: Callable[[str], LoadedModel], family: str
) -> None:
    model = tiny_family(family)
    shape = shape_of(model.model.config)
    calls: list[LayerCall] = []
    with torch.no_grad(), swapped(model.model, "eager", calls.append):
        model.model(torch.arange(1, 13)[None])
    assert shape.parameters == model.parameters
    assert shape.is_swappable
    assert len(shape.layers) == len(calls)
    for layer, call in zip(shape.layers, calls, strict=True):
        assert layer.query_heads == call.q_BHQD.shape[1]
        assert (layer.kv_heads, layer.head_dim) == call.k_BGKD.shape[1::2]
        assert layer.value_dim == call.v_BGKD.shape[3]
        assert layer.scale == call.scale
        assert layer.softcap == call.softcap
        assert layer.has_sinks == (call.sinks_H is not None)
        if layer.kind != "chunked":
            assert layer.pattern == call.mask.patterns[0]


@pytest.mark.parametrize("family", [*DECODERS, *MORE_DECODERS])
@pytest.mark.parametrize("length", [WINDOW - 2, WINDOW, 3 * WINDOW])
def test_the_cache_to_the_byte(family: str, length: int) -> None:
    """What the shape says the cache holds, beside the tensors of a real forward pass."""
    config = {**DECODERS, **MORE_DECODERS}[family]()
    shape = shape_of(config)
    model = hf.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    cache = DynamicCache(config=config)
    with torch.no_grad():
        model(torch.ones(2, length - 1, dtype=torch.long), past_key_values=cache)
        assert _cached_bytes(cache) == _said(shape, length - 1, "prompt")
        model(torch.ones(2, 1, dtype=torch.long), past_key_values=cache)
    assert _cached_bytes(cache) == _said(shape, length, "step")


def _said(shape: ModelShape, length: int, when: str) -> tuple[int, int]:
    """Of two sequences in float32: w − 1 positions a window, and n or w of them kept in memory."""
    tensors = kept = 0
    for layer in shape.layers:
        assert all((size.batch_power, size.length_power) == (1, 1) for size in layer.cache)
        width = 2 * 4 * sum(size.elements for size in layer.cache)
        window = layer.window or length + 1
        tensors += width * min(length, window - 1)
        kept += width * (length if when == "prompt" else min(length, window))
    return tensors, kept


def test_kinds_of_layers() -> None:
    kinds = {
        family: [layer.kind for layer in shape_of(DECODERS[family]()).layers]
        for family in ("llama", "mistral", "gemma3_text", "deepseek_v3", "llama4_text")
    }
    assert kinds == {
        "llama": ["full", "full"],
        "mistral": ["window", "window"],
        "gemma3_text": ["window", "full"],
        "deepseek_v3": ["latent", "latent"],
        "llama4_text": ["chunked", "full"],
    }
    assert {layer.latent_width for layer in shape_of(DECODERS["deepseek_v3"]()).layers} == {24}


@pytest.mark.parametrize(
    ("family", "ffn", "experts", "active"),
    [("llama", 64, 0, 0), ("mixtral", 64, 4, 2), ("qwen3_moe", 16, 4, 2), ("phi3", 64, 0, 0)],
)
def test_feed_forward_widths_and_experts(family: str, ffn: int, experts: int, active: int) -> None:
    shape = shape_of({**DECODERS, **MORE_DECODERS}[family]())
    assert (shape.hidden, shape.ffn) == (32, ffn)
    assert (shape.experts, shape.active_experts) == (experts, active)
    assert (shape.expert_parameters > 0) == (experts > 0)


def test_tied_embeddings_count_once() -> None:
    sizes = {**_sizes(), "num_key_value_heads": 4}
    loose, tied = (
        shape_of(hf.LlamaConfig(**sizes, tie_word_embeddings=tied)) for tied in (False, True)
    )
    assert loose.parameters - tied.parameters == 96 * 32


def test_an_encoder_decoder_has_the_layers_of_both() -> None:
    config = hf.BartConfig(
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        vocab_size=96,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_eos_token_id=None,
    )
    shape = shape_of(config)
    assert shape.is_encoder_decoder
    assert [bool(layer.cache) for layer in shape.layers] == [False] * 2 + [True] * 4
    assert rehearsed(shape, "decode", "float32").moments


@pytest.mark.parametrize(
    "config",
    [
        lambda: hf.BloomConfig(hidden_size=32, n_layer=2, n_head=4, vocab_size=96),
        lambda: hf.FalconConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=4, vocab_size=96
        ),
    ],
)
def test_a_model_with_attention_of_its_own_is_told(config: Callable[[], PreTrainedConfig]) -> None:
    shape = shape_of(config())
    assert not shape.is_swappable
    assert all(layer.cache for layer in shape.layers)
    squares = [
        held
        for moment in rehearsed(shape, "prefill", "bfloat16").moments
        for held in moment.held
        if held.size.length_power == 2
    ]
    assert squares  # its scores


def test_a_recurrence_that_cannot_be_followed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "MOST_OPERATIONS", 2000)
    config = hf.MambaConfig(hidden_size=32, num_hidden_layers=2, vocab_size=96, state_size=4)
    with pytest.raises(ModelUnsupported, match="position after position"):
        shape_of(config)


def test_a_shape_gives_its_configuration_back() -> None:
    config = DECODERS["gemma3_text"]()
    assert config_of(shape_of(config)).to_dict() == config.to_dict()
