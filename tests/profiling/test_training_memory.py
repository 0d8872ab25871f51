"""Training beside PyTorch's memory tracker, and optimiser states beside PyTorch's own."""

from math import ceil
from typing import Any

import pytest
import torch
import transformers as hf
from transformers import AutoModelForCausalLM

from attnscope.kernels.errors import UnsupportedCall
from attnscope.models.shape import config_of, shape_of
from attnscope.profiling.calculator import estimate
from attnscope.profiling.tracker import traced_training
from attnscope.profiling.training_memory import kept
from tests.profiling.shapes import tiny

SIZES: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "vocab_size": 1000,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED: dict[str, Any] = {**SIZES, "num_key_value_heads": 2}
WINDOWED: dict[str, Any] = {**GROUPED, "head_dim": 16, "sliding_window": 64}
ARCHITECTURES = {
    "multi-head": lambda: hf.LlamaConfig(**SIZES, num_key_value_heads=8),
    "grouped": lambda: hf.LlamaConfig(**GROUPED),
    "windows": lambda: hf.MistralConfig(**GROUPED, sliding_window=64),
    "windows and softcap": lambda: hf.Gemma2Config(**WINDOWED),
    "experts": lambda: hf.MixtralConfig(**GROUPED, num_local_experts=4),
    "experts and sinks": lambda: hf.GptOssConfig(
        **WINDOWED, num_local_experts=4, num_experts_per_tok=2
    ),
    "learned positions": lambda: hf.GPT2Config(
        n_embd=128,
        n_layer=3,
        n_head=8,
        vocab_size=1000,
        attn_pdrop=0.0,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "encoder": lambda: hf.BertConfig(**SIZES, attention_probs_dropout_prob=0.0),
}
EAGER, SDPA = "transformers_eager", "transformers_sdpa"
PLAIN: dict[str, Any] = {"dtype": "bfloat16", "optimizer": "adamw"}
SHORT: dict[str, Any] = {"dtype": "bfloat16", "optimizer": "adafactor", "length": 16}
RECOMPUTED: dict[str, Any] = {"dtype": "float32", "optimizer": "sgd", "checkpointing": True}
CELLS = [
    ("multi-head", EAGER, PLAIN),
    ("multi-head", SDPA, RECOMPUTED),
    ("grouped", SDPA, PLAIN),
    ("grouped", "sdpa_flash", SHORT),
    ("grouped", "sdpa_math", PLAIN),
    ("grouped", "sdpa_math", RECOMPUTED),
    ("windows", EAGER, RECOMPUTED),
    ("windows", SDPA, PLAIN),
    ("windows", "sdpa_flash", PLAIN),
    ("windows and softcap", EAGER, PLAIN),
    ("experts", SDPA, PLAIN),
    ("experts", SDPA, RECOMPUTED),
    ("experts and sinks", EAGER, PLAIN),
    ("experts and sinks", EAGER, {**PLAIN, "dtype": "float32"}),
    ("learned positions", SDPA, PLAIN),
    ("learned positions", EAGER, {**SHORT, "optimizer": "adam"}),
    ("encoder", SDPA, RECOMPUTED),
]


@pytest.mark.parametrize(("architecture", "backend", "asked"), CELLS)
def test_a_step_of_training_is_the_traced_one(
    architecture: str, backend: str, asked: dict[str, Any]
) -> None:
    shape = shape_of(ARCHITECTURES[architecture]())
    given = {"backend": backend, "batch": 2, "length": 256, **asked}
    found = estimate(shape, phase="training", **given)
    traced = traced_training(shape, **given)
    assert found.total_bytes == pytest.approx(traced.total_bytes, rel=2e-3)
    assert (found.peak_phase == "optimiser") is (traced.module == "optimiser")
    held = {term.name: term.nbytes for term in found.terms}
    assert traced.gradient_bytes == held.get("gradients", 0)
    kept_bytes = held.get("master weights", 0) + held.get("optimiser states", 0)
    # Of each parameter PyTorch also keeps the number of its steps.
    assert kept_bytes == pytest.approx(traced.kept_bytes, rel=2e-3)


def test_a_kernel_that_cannot_be_traced_keeps_what_flash_kernels_do() -> None:
    given: dict[str, Any] = {"backend": "triton", "batch": 2, "length": 256}
    shape = shape_of(ARCHITECTURES["windows"]())
    with pytest.raises(UnsupportedCall):
        traced_training(shape, **given)
    traced = traced_training(shape, stated=True, **given)
    found = estimate(shape, phase="training", **given)
    assert found.total_bytes == pytest.approx(traced.total_bytes, rel=1e-4)


def test_dropout_that_sdpa_takes_on_a_gpu_only_is_refused() -> None:
    shape = shape_of(hf.BertConfig(**SIZES, attention_probs_dropout_prob=0.1))
    with pytest.raises(UnsupportedCall, match="drops attention weights"):
        traced_training(shape, backend=SDPA, length=8)


def test_an_optimizer_that_pytorch_lacks_is_refused() -> None:
    with pytest.raises(UnsupportedCall, match="PyTorch has no adamw_8bit"):
        traced_training(tiny(), backend="sdpa_flash", length=8, optimizer="adamw_8bit")


def _states(optimizer: torch.optim.Optimizer) -> int:
    return sum(
        value.nbytes
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor) and value.ndim
    )


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("adamw", lambda weights: torch.optim.AdamW(weights)),
        ("adam", lambda weights: torch.optim.Adam(weights)),
        ("sgd", lambda weights: torch.optim.SGD(weights, lr=0.1)),
        ("adafactor", lambda weights: torch.optim.Adafactor(weights)),
    ],
)
def test_states_are_those_of_the_optimiser(name: str, make) -> None:
    shape = tiny()
    model = AutoModelForCausalLM.from_config(config_of(shape), dtype=torch.float32)
    optimizer = make(model.parameters())
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert sum(term.nbytes for term in kept(shape, name, 4)) == _states(optimizer)


def test_eight_bit_states_and_master_weights() -> None:
    model = AutoModelForCausalLM.from_config(config_of(tiny()))
    expected = 2 * 256 * 4
    for weight in model.parameters():
        number = weight.numel()
        expected += 8 * number if number < 4096 else 2 * (number + 4 * ceil(number / 256))
    master, states = kept(tiny(), "adamw_8bit", 2)
    assert master.nbytes == 4 * tiny().parameters
    assert states.nbytes == expected
