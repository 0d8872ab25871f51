"""Every way to name a model, and every way that can go wrong."""

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from attnscope.kernels.errors import (
    InvalidCall,
    ModelError,
    ModelNotFound,
    ModelTooLarge,
    ModelUnsafe,
    ModelUnsupported,
)
from attnscope.models import loading
from attnscope.models.checkpoint import inspect
from attnscope.models.shipped import SHIPPED


@pytest.fixture
def folder(saved_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may damage."""
    copy = tmp_path / "copy"
    shutil.copytree(saved_folder, copy)
    return copy


def _change_config(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def _pickled(folder: Path, name: str = "pytorch_model.bin") -> None:
    with (folder / name).open("wb") as stream:
        pickle.dump({"weight": 1}, stream)


def test_a_local_folder_opens(saved_folder: Path) -> None:
    model = loading.load(str(saved_folder), device="cpu")
    assert model.kind == "decoder"
    assert model.title == "tiny-llama"
    assert model.dtype == torch.float32
    assert model.max_length == 64
    assert not model.model.training
    assert model.tokens(model.tokenizer("ab c")["input_ids"]) == ("a", "b", " ", "c")


def test_size_and_parameters_are_those_of_the_weights(saved_folder: Path) -> None:
    model = loading.load(str(saved_folder), device="cpu")
    weights = load_file(saved_folder / "model.safetensors")
    assert model.parameters == sum(weight.numel() for weight in weights.values())
    buffers = sum(buffer.nbytes for buffer in model.model.buffers())
    assert model.nbytes == 4 * model.parameters + buffers


def test_an_encoder_opens_with_its_head(saved_encoder: Path) -> None:
    model = loading.load(str(saved_encoder), device="cpu")
    assert (model.kind, model.has_head) == ("encoder", True)
    assert "MaskedLM" in type(model.model).__name__


def test_a_relative_path_must_say_so(saved_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(saved_folder.parent)
    assert loading.load("./tiny-llama", device="cpu").title == "tiny-llama"


@pytest.mark.parametrize(
    "source",
    [
        "",
        "   ",
        "a\0b",
        "x" * 501,
        "../../etc",
        "..",
        "~/model",
        "a/b/c",
        "gpt2; rm -rf",
        "<b>x</b>",
        "-x",
        "a--b",
    ],
)
def test_junk_is_refused_before_anything_is_touched(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading.hub, "download", lambda *_a, **_k: pytest.fail("reached the hub"))
    monkeypatch.setattr(Path, "is_dir", lambda _self: pytest.fail("touched the disk"))
    with pytest.raises(ModelNotFound, match="hub id"):
        loading.load(source)


def test_a_missing_folder_says_so() -> None:
    with pytest.raises(ModelNotFound, match="no folder /nowhere/at/all"):
        loading.load("/nowhere/at/all")


def test_a_missing_demo_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHIPPED, "demo", replace(SHIPPED["demo"], inside=str(tmp_path / "none")))
    with pytest.raises(ModelNotFound, match="demo_training"):
        loading.load("demo")


def test_the_demo_is_the_folder_in_assets(
    saved_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SHIPPED, "demo", replace(SHIPPED["demo"], inside=str(saved_folder)))
    assert loading.load("demo", device="cpu").title == "Demo model"


def test_pickles_alone_are_never_read(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    _pickled(folder)
    with pytest.raises(ModelUnsafe, match=r"pytorch_model\.bin"):
        loading.load(str(folder))


def test_a_pickle_beside_safetensors_is_left_alone_and_named(folder: Path) -> None:
    _pickled(folder)
    model = loading.load(str(folder), device="cpu")
    assert "pytorch_model.bin is never read" in model.note


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"model_type": "own", "auto_map": {"AutoModel": "own.Model"}}, ModelUnsafe, "never run"),
        ({"model_type": "from_the_future"}, ModelUnsupported, "Update transformers"),
        ({"is_encoder_decoder": True}, ModelUnsupported, "encoder-decoder"),
        ({"model_type": "timesformer", "image_size": 8}, ModelUnsupported, "several pictures"),
    ],
)
def test_architectures_that_cannot_be_opened(
    folder: Path, changes: dict, error: type[ModelError], words: str
) -> None:
    _change_config(folder, **changes)
    with pytest.raises(error, match=words):
        loading.load(str(folder))


def test_code_beside_a_shipped_architecture_is_not_run(folder: Path) -> None:
    _change_config(folder, auto_map={"AutoModelForCausalLM": "own.Model"})
    (folder / "own.py").write_text("raise SystemExit('this code ran')")
    assert loading.load(str(folder), device="cpu").model.config.model_type == "llama"


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.json", "{", "not readable JSON"),
        ("config.json", "[]", "not a JSON object"),
        ("model.safetensors", "abc", "safetensors"),
        ("model.safetensors", "x" * 64, "safetensors"),
        ("tokenizer.json", "{", "tokenizer"),
    ],
)
def test_damaged_files_are_named(folder: Path, file: str, content: str, words: str) -> None:
    (folder / file).write_text(content)
    with pytest.raises(ModelUnsupported, match=words):
        loading.load(str(folder))


def test_weights_that_the_config_asks_for_must_be_there(folder: Path) -> None:
    file = folder / "model.safetensors"
    kept = {name: x for name, x in load_file(file).items() if ".layers.1.self_attn" not in name}
    save_file(kept, file, metadata={"format": "pt"})
    with pytest.raises(ModelUnsupported, match=r"lack \d+ .*layers\.1\.self_attn"):
        loading.load(str(folder))


def test_weights_held_twice_are_counted_once(saved_folder: Path, folder: Path) -> None:
    shutil.copy(folder / "model.safetensors", folder / "consolidated.safetensors")
    assert loading.load(str(folder)).parameters == loading.load(str(saved_folder)).parameters
    assert inspect(folder, "tiny").parameters == inspect(saved_folder, "tiny").parameters


def test_a_name_no_disk_can_hold_is_refused() -> None:
    with pytest.raises(ModelNotFound, match="There is no folder"):
        loading.load("/" + "a" * 290)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_missing_files_are_named(folder: Path, file: str) -> None:
    (folder / file).unlink()
    with pytest.raises(ModelNotFound, match=r"config\.json"):
        loading.load(str(folder))


def test_a_missing_tokenizer_is_named(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelUnsupported, match="tokenizer"):
        loading.load(str(folder))


def test_too_large_is_known_before_loading(
    saved_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_open", lambda *_a: pytest.fail("started to load"))
    with pytest.raises(ModelTooLarge, match="and 1000 bytes can be had"):
        loading.load(str(saved_folder), memory_limit=1000)


def test_half_precision_is_offered_where_it_would_fit(saved_folder: Path) -> None:
    parameters = sum(one.numel() for one in load_file(saved_folder / "model.safetensors").values())
    with pytest.raises(ModelTooLarge, match="bfloat16"):
        loading.load(str(saved_folder), memory_limit=3 * parameters)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtype_is_as_asked(saved_folder: Path, dtype: str) -> None:
    assert str(loading.load(str(saved_folder), device="cpu", dtype=dtype).dtype) == f"torch.{dtype}"


def test_half_precision_checkpoints_become_float32_on_a_cpu(folder: Path) -> None:
    half = loading.load(str(folder), device="cpu", dtype="bfloat16")
    half.model.save_pretrained(folder)
    assert loading.load(str(folder), device="cpu").dtype == torch.float32


@pytest.mark.parametrize(
    "arguments", [{"device": "abacus"}, {"device": "cuda:99"}, {"dtype": "int3"}]
)
def test_unknown_devices_and_dtypes(saved_folder: Path, arguments: dict[str, str]) -> None:
    if torch.cuda.is_available() and "device" in arguments:
        pytest.skip("there is a CUDA device")
    with pytest.raises(InvalidCall):
        loading.load(str(saved_folder), **arguments)  # pyright: ignore[reportArgumentType]


def test_progress_rises_to_one(saved_folder: Path) -> None:
    seen: list[tuple[float, str]] = []
    loading.load(str(saved_folder), device="cpu", progress=lambda *step: seen.append(step))
    shares = [share for share, _ in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert all(step for _, step in seen)


def test_progress_can_stop_the_loading(saved_folder: Path) -> None:
    def stop(share: float, step: str) -> None:
        raise InterruptedError(f"{share} {step}")

    with pytest.raises(InterruptedError):
        loading.load(str(saved_folder), progress=stop)
