"""The tracer: what it refuses, and a quick part of the grid against the calculator."""

import pytest

from attnscope.kernels.errors import ModelUnsupported, UnknownBackend, UnsupportedCall
from attnscope.models.shape import shape_of
from attnscope.profiling.calculator import estimate
from attnscope.profiling.tracker import traced_peak
from benchmarks.calculator_models import MODELS
from tests.profiling.shapes import tiny

QUICK = [
    ("llama3_8b", "eager", 1024),
    ("llama3_8b", "sdpa_flash", 16_384),
    ("llama3_8b", "transformers_eager", 16_384),
    ("mistral_7b", "tiled", 1024),
    ("bert_large", "transformers_eager", 16_384),
    ("starcoder_15b", "eager", 16_384),
    ("deepseek_v3", "eager", 1024),
    ("gpt_oss_20b", "eager", 1024),
]


@pytest.mark.parametrize(("model", "backend", "length"), QUICK)
def test_the_estimate_is_the_traced_peak(model: str, backend: str, length: int) -> None:
    shape = shape_of(MODELS[model]())
    traced = traced_peak(shape, backend=backend, length=length)
    predicted = estimate(shape, backend=backend, length=length)
    assert predicted.total_bytes == pytest.approx(traced.total_bytes, rel=2e-4)
    assert traced.module
    assert traced.parameter_bytes == predicted.term("weights").nbytes + shape.buffer_bytes


@pytest.mark.parametrize("backend", ["eager", "sdpa_flash", "tiled", "transformers_sdpa"])
def test_batches_and_float32(backend: str) -> None:
    given = {"backend": backend, "batch": 3, "length": 200, "dtype": "float32"}
    # What a tile holds is stated for the largest there is, and here all is small beside it; eager
    # holds a number a row or two that a model of real size does not feel.
    allowed = 0.04 if backend == "tiled" else 5e-3
    traced = traced_peak(tiny(), **given).total_bytes
    assert estimate(tiny(), **given).total_bytes == pytest.approx(traced, rel=allowed)


def test_what_cannot_be_traced_says_so() -> None:
    with pytest.raises(UnknownBackend):
        traced_peak(tiny(), backend="magic", length=8)
    with pytest.raises(UnsupportedCall):
        traced_peak(tiny(), backend="sdpa_cudnn", length=8)
    with pytest.raises(ModelUnsupported, match="transformers_sdpa"):
        traced_peak(shape_of(MODELS["gemma2_9b"]()), backend="transformers_sdpa", length=8)
