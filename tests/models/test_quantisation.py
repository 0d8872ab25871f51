"""Bytes of quantised weights against numbers worked out by hand."""

import pytest
import transformers as hf

from attnscope.kernels.errors import ModelUnsupported
from attnscope.models.shape import ModelShape, shape_of
from attnscope.profiling.peak import fixed_terms
from attnscope.profiling.plan import Plan

LINEAR = 2 * (4 * 64 * 64 + 3 * 64 * 128)
"""Two layers: q, k, v, o and gate, up, down."""

HEAD = 256 * 64


def _shape(**quantised: object) -> ModelShape:
    config = hf.LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=256,
    )
    if quantised:
        config.quantization_config = quantised
    return shape_of(config)


def _weights(shape: ModelShape) -> int:
    plan = Plan(shape=shape, backend="triton", batch=1, dtype="bfloat16", phase="prefill")
    return fixed_terms(plan)[0].nbytes


@pytest.mark.parametrize(
    ("fields", "stored"),
    [
        (
            {"quant_method": "gptq", "bits": 4, "group_size": 64},
            LINEAR // 2 + LINEAR // 64 * 20 // 8,
        ),
        (
            {"quant_method": "awq", "bits": 4, "group_size": 128},
            LINEAR // 2 + LINEAR // 128 * 20 // 8,
        ),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, LINEAR // 2 + LINEAR // 64 * 4),
        ({"quant_method": "fp8", "weight_block_size": [64, 64]}, LINEAR + LINEAR // 4096 * 4),
    ],
)
def test_weights_scales_and_zeros(fields: dict, stored: int) -> None:
    plain, quantised = _shape(), _shape(**fields)
    assert quantised.quantisation is not None
    assert quantised.quantisation.parameters == LINEAR
    assert _weights(quantised) == _weights(plain) - 2 * LINEAR + stored
    assert plain.parameters == LINEAR + 2 * HEAD + 5 * 64


def test_spared_modules_stay_as_they_are() -> None:
    fields = {"quant_method": "fp8", "modules_to_not_convert": ["mlp"]}
    quantised = _shape(**fields).quantisation
    assert quantised is not None
    assert quantised.parameters == 2 * 4 * 64 * 64


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ModelUnsupported, match="never-heard-of"):
        _shape(quant_method="never-heard-of")
