"""Encoder-decoders in the calculator, beside PyTorch's memory tracker."""

from functools import partial
from typing import Any

import pytest
import transformers as hf

from attnscope.kernels.errors import ModelUnsupported, UnsupportedCall
from attnscope.models.shape import ModelShape, shape_of
from attnscope.profiling.calculator import estimate
from attnscope.profiling.tracker import traced_peak, traced_training

MARKS: dict[str, int] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SIDES: dict[str, Any] = {
    f"{side}_{what}": number
    for side in ("encoder", "decoder")
    for what, number in (("layers", 2), ("attention_heads", 8), ("ffn_dim", 352))
}
T5: dict[str, Any] = {"d_model": 128, "d_kv": 16, "d_ff": 352, "num_layers": 2, "num_heads": 8}
BART: dict[str, Any] = {**SIDES, "d_model": 128, "vocab_size": 1000, **MARKS}
MODELS = {
    "t5": lambda: hf.T5Config(**T5, vocab_size=1000),
    "bart": lambda: hf.BartConfig(**BART, forced_eos_token_id=2, decoder_start_token_id=2),
    "marian": lambda: hf.MarianConfig(**BART, decoder_start_token_id=2),
}
CELLS = [
    ("t5", "eager", "prefill"),
    ("t5", "sdpa_flash", "decode"),
    ("t5", "transformers_eager", "training"),
    ("t5", "transformers_sdpa", "prefill"),
    ("bart", "sdpa_flash", "prefill"),
    ("bart", "transformers_eager", "decode"),
    ("bart", "sdpa_math", "training"),
    ("marian", "eager", "prefill"),
    ("marian", "sdpa_flash", "training"),
]


@pytest.mark.parametrize(("model", "backend", "phase"), CELLS)
def test_the_estimate_is_the_traced_peak(model: str, backend: str, phase: Any) -> None:
    given: dict[str, Any] = {"backend": backend, "batch": 2, "length": 256}
    shape = shape_of(MODELS[model]())
    found = estimate(shape, phase=phase, **given)
    trace = traced_training if phase == "training" else partial(traced_peak, phase=phase)
    traced = trace(shape, **given)
    # An encoder's output beside a cache of both attentions: a small model feels it.
    assert found.total_bytes == pytest.approx(traced.total_bytes, rel=2e-3)
    assert "The source has 256 tokens, and the target as many." in found.notes


@pytest.mark.parametrize("backend", ["sdpa_flash", "transformers_sdpa"])
def test_a_learned_position_bias_is_trained_by_the_models_own_attention(backend: str) -> None:
    with pytest.raises(UnsupportedCall, match=r"bias is learned.*Train with transformers_eager"):
        estimate(t5(), backend=backend, length=64, phase="training")
    assert estimate(t5(), backend="transformers_eager", length=64, phase="training").total_bytes


def test_what_is_traced_of_it_is_refused_too() -> None:
    with pytest.raises(UnsupportedCall, match="learns its position_bias"):
        traced_training(t5(), backend="sdpa_flash", length=64)
    drops = shape_of(hf.T5Config(**T5, vocab_size=1000, dropout_rate=0.1))
    with pytest.raises(UnsupportedCall, match="drops attention weights"):
        traced_training(drops, backend="transformers_sdpa", length=64)


def test_tables_of_sinusoids_are_not_trained() -> None:
    shape, config = shape_of(MODELS["marian"]()), MODELS["marian"]()
    tables = 2 * config.max_position_embeddings * config.d_model
    assert shape.trained_parameters == shape.parameters - tables
    found = estimate(shape, backend="sdpa_flash", length=64, phase="training")
    assert found.term("optimiser states").nbytes == 8 * (shape.parameters - tables)


def test_one_that_reads_sound_is_refused_by_name() -> None:
    config = hf.WhisperConfig(**BART, decoder_start_token_id=2)
    with pytest.raises(ModelUnsupported, match="whisper is an encoder-decoder that reads no text"):
        shape_of(config)


def t5() -> ModelShape:
    return shape_of(hf.T5Config(**T5, vocab_size=1000, dropout_rate=0.0))
