from pathlib import Path

import huggingface_hub
import pytest

from attnscope.models.cached import cached_models


def put(cache: Path, name: str, commit: str, files: dict[str, str]) -> None:
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for file, text in files.items():
        (snapshot / file).write_text(text)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(commit)


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "hub"
    scan = huggingface_hub.scan_cache_dir
    monkeypatch.setattr(huggingface_hub, "scan_cache_dir", lambda: scan(folder))
    return folder


def test_no_cache_is_no_models(cache: Path) -> None:
    assert cached_models() == ()


def test_cached_models_say_whether_they_can_be_loaded(cache: Path) -> None:
    put(
        cache,
        "org/good",
        "a" * 40,
        {"config.json": '{"model_type": "llama"}', "model.safetensors": "x"},
    )
    put(cache, "org/bad", "b" * 40, {"config.json": "[", "pytorch_model.bin": "x"})
    bad, good = cached_models()
    assert (good.source, good.revision, good.architecture) == ("org/good", "a" * 40, "llama")
    assert good.has_safetensors
    assert (bad.source, bad.architecture, bad.has_safetensors) == ("org/bad", "", False)
