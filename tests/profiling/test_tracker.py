"""The tracer: what it refuses, and a quick part of the grid against the calculator."""

from typing import Any

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


@pytest.mark.parametrize("backend", ["eager", "sdpa_flash", "transformers_eager"])
@pytest.mark.parametrize("model", ["llama3_8b", "mistral_7b"])
def test_a_step_is_traced_as_it_is_after_other_steps(model: str, backend: str) -> None:
    shape = shape_of(MODELS[model]())
    asked: dict[str, Any] = {"backend": backend, "length": 8192, "phase": "decode"}
    traced, predicted = traced_peak(shape, **asked), estimate(shape, **asked)
    assert predicted.total_bytes == pytest.approx(traced.total_bytes, rel=2e-4)
    # What a window's layer counts of itself is a few numbers of the cache's own.
    assert traced.cache_bytes == pytest.approx(predicted.term("key/value cache").nbytes, rel=1e-5)


def test_parts_add_up_and_a_pass_says_how_far_it_is() -> None:
    shares: list[float] = []
    traced = traced_peak(tiny(), backend="eager", batch=2, length=64, report=shares.append)
    predicted = estimate(tiny(), backend="eager", batch=2, length=64)
    cache = predicted.term("key/value cache").nbytes
    rest = predicted.total_bytes - cache - traced.parameter_bytes
    assert traced.cache_bytes == cache
    assert traced.activation_bytes == pytest.approx(rest, rel=5e-3)
    assert shares == sorted(shares)
    assert 0.8 < shares[-1] <= 1


def test_logits_of_every_position_are_traced() -> None:
    asked: dict[str, Any] = {"backend": "sdpa_flash", "length": 256, "all_logits": True}
    wide = shape_of(MODELS["llama3_8b"]())
    assert estimate(wide, **asked).total_bytes == traced_peak(wide, **asked).total_bytes


@pytest.mark.parametrize("backend", ["triton", "sdpa_cudnn", "flex", "triton_decode"])
def test_a_kernel_that_cannot_be_traced_may_be_stated(backend: str) -> None:
    shape = shape_of(MODELS["llama3_8b"]())
    asked: dict[str, Any] = {
        "backend": backend,
        "length": 4096,
        "phase": "decode" if backend == "triton_decode" else "prefill",
    }
    with pytest.raises(UnsupportedCall):
        traced_peak(shape, **asked)
    stated = traced_peak(shape, stated=True, **asked).total_bytes
    assert estimate(shape, **asked).total_bytes == pytest.approx(stated, rel=2e-4)


def test_what_cannot_be_traced_says_so() -> None:
    with pytest.raises(UnknownBackend):
        traced_peak(tiny(), backend="magic", length=8)
    with pytest.raises(UnsupportedCall):
        traced_peak(tiny(), backend="sdpa_cudnn", length=8)
    with pytest.raises(ModelUnsupported, match="transformers_sdpa"):
        traced_peak(shape_of(MODELS["gemma2_9b"]()), backend="transformers_sdpa", length=8)
    bert = shape_of(MODELS["bert_large"]())
    with pytest.raises(ModelUnsupported, match="decoding step"):
        traced_peak(bert, backend="eager", length=8, phase="decode")
