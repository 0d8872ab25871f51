"""A folder is judged by its JSON and headers: the oracle is what was saved into it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from attnscope.kernels.errors import ModelNotFound, ModelUnsafe, ModelUnsupported
from attnscope.models.checkpoint import PICKLES, check_weight_files, inspect, judge_config


def test_sizes_are_those_of_the_tensors(saved_folder: Path) -> None:
    found = inspect(saved_folder, "tiny")
    weights = load_file(saved_folder / "model.safetensors")
    assert found.parameters == sum(weight.numel() for weight in weights.values())
    assert found.stored_bytes == sum(weight.nbytes for weight in weights.values())
    assert found.dtype == torch.float32
    assert found.bytes_as(torch.bfloat16) == 2 * found.parameters
    assert (found.kind, found.model_type, found.has_head) == ("decoder", "llama", True)
    assert found.note == ""


def test_shards_are_summed_and_the_commonest_dtype_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    save_file({"a": torch.zeros(3, 5, dtype=torch.bfloat16)}, tmp_path / "model-1.safetensors")
    save_file({"b": torch.zeros(4)}, tmp_path / "model-2.safetensors")
    found = inspect(tmp_path, "tiny")
    assert (found.parameters, found.stored_bytes, found.dtype) == (19, 46, torch.bfloat16)


@pytest.mark.parametrize("suffix", PICKLES)
def test_every_pickled_format_is_refused(suffix: str) -> None:
    with pytest.raises(ModelUnsafe, match="run code"):
        check_weight_files(["config.json", f"weights{suffix}"], "tiny")


def test_no_weights_at_all() -> None:
    with pytest.raises(ModelNotFound, match="no weights"):
        check_weight_files(["config.json"], "tiny")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, ("decoder", "gpt2", True)),
        ({"model_type": "gpt2", "architectures": ["GPT2Model"]}, ("decoder", "gpt2", False)),
        ({"model_type": "qwen3"}, ("decoder", "qwen3", True)),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, ("encoder", "bert", True)),
        ({"model_type": "bert", "architectures": ["BertModel"]}, ("encoder", "bert", False)),
        (
            {"model_type": "bert", "is_decoder": True, "architectures": ["BertLMHeadModel"]},
            ("decoder", "bert", True),
        ),
        (
            {"model_type": "modernbert", "architectures": ["ModernBertForMaskedLM"]},
            ("encoder", "modernbert", True),
        ),
    ],
)
def test_kinds_are_told_from_the_configuration(
    config: dict[str, object], expected: tuple[str, str, bool]
) -> None:
    assert judge_config(config, "tiny") == expected


@pytest.mark.parametrize(
    ("model_type", "architecture"),
    [
        ("bart", "BartForConditionalGeneration"),
        ("marian", "MarianMTModel"),
        ("t5", "T5ForConditionalGeneration"),
        ("vision-encoder-decoder", "VisionEncoderDecoderModel"),
    ],
)
def test_encoder_decoders_are_told_with_their_head(model_type: str, architecture: str) -> None:
    config: dict[str, object] = {"model_type": model_type, "is_encoder_decoder": True}
    expected = ("encoder-decoder", model_type, True)
    assert judge_config({**config, "architectures": [architecture]}, "tiny") == expected
    with pytest.raises(ModelUnsupported, match="without a language-model head"):
        judge_config({**config, "architectures": ["BartForSequenceClassification"]}, "tiny")


@pytest.mark.parametrize("model_type", ["t5", "timesformer", "", "whisper"])
def test_what_is_no_decoder_or_encoder_of_text(model_type: str) -> None:
    config = {
        "model_type": model_type,
        "image_size": 8,
        "is_encoder_decoder": model_type in {"t5", "whisper"},
    }
    with pytest.raises(ModelUnsupported):
        judge_config(config, "tiny")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"abc",
        b"\xff" * 8,
        b"\x02" + b"\0" * 7 + b"[]",
        b"\x02" + b"\0" * 7 + b"{}",
        b"\x07" + b"\0" * 7 + b'{"a":1}',
    ],
)
def test_damaged_headers(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelUnsupported, match="not a readable safetensors file"):
        inspect(tmp_path, "tiny")
