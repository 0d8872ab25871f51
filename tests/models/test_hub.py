"""The hub without a network: its client is replaced, and raises its own real errors."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub import errors

from attnscope.kernels.errors import (
    ModelAccessDenied,
    ModelError,
    ModelNotFound,
    ModelTooLarge,
    ModelUnreachable,
    ModelUnsafe,
)
from attnscope.models import hub, loading

ID = "someone/tiny"


def _response(status: int) -> SimpleNamespace:
    return SimpleNamespace(status_code=status, headers={}, request=None)


def _http(kind: type[errors.HfHubHTTPError], status: int) -> errors.HfHubHTTPError:
    return kind(f"status {status}", response=_response(status))  # pyright: ignore[reportArgumentType]


def _connection_lost() -> Exception:
    return hub._CONNECTION_ERRORS[0]("no route to host")


def _info(
    *files: str, parameters: dict[str, int] | None = None, size: int = 1000
) -> SimpleNamespace:
    return SimpleNamespace(
        siblings=[SimpleNamespace(rfilename=file, size=size) for file in files],
        safetensors=None if parameters is None else SimpleNamespace(parameters=parameters),
        sha="c0ffee",
    )


@pytest.fixture
def fake_hub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict]]:
    """Sets what the hub answers: an info or an error, then a folder or an error."""

    def answer(info: object, snapshot: object = None) -> list[dict]:
        calls: list[dict] = []

        def model_info(_self: object, repository: str, **others: object) -> object:
            calls.append({"asked": repository, **others})
            if isinstance(info, Exception):
                raise info
            return info

        def snapshot_download(repository: str, **others: object) -> str:
            calls.append({"downloaded": repository, **others})
            if isinstance(snapshot, Exception):
                raise snapshot
            return str(snapshot)

        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
        return calls

    return answer


@pytest.mark.parametrize(
    ("raised", "error", "words"),
    [
        (_http(errors.RepositoryNotFoundError, 404), ModelNotFound, "spelling"),
        (_http(errors.GatedRepoError, 403), ModelAccessDenied, "licence"),
        (_http(errors.RevisionNotFoundError, 404), ModelNotFound, "no revision 'v9'"),
        (_http(errors.HfHubHTTPError, 401), ModelAccessDenied, "HF_TOKEN"),
        (_http(errors.HfHubHTTPError, 429), ModelUnreachable, "429"),
    ],
)
def test_what_the_hub_refuses(
    fake_hub: Callable, raised: Exception, error: type[ModelError], words: str
) -> None:
    fake_hub(raised)
    with pytest.raises(error, match=words):
        loading.load(ID, revision="v9")


@pytest.mark.parametrize(
    "raised",
    [
        errors.OfflineModeIsEnabled("offline"),
        _connection_lost(),
        TimeoutError(),
        _http(errors.HfHubHTTPError, 503),
    ],
)
def test_without_the_hub_the_cache_is_used(
    fake_hub: Callable, saved_folder: Path, raised: Exception
) -> None:
    calls = fake_hub(raised, saved_folder)
    model = loading.load(ID, device="cpu")
    assert model.title == ID
    assert model.revision == saved_folder.name
    assert calls[-1]["local_files_only"] is True


def test_neither_hub_nor_cache(fake_hub: Callable) -> None:
    missing = errors.LocalEntryNotFoundError("not cached")
    fake_hub(errors.OfflineModeIsEnabled("offline"), missing)
    with pytest.raises(ModelUnreachable, match="not in the local cache"):
        loading.load(ID)


def test_a_broken_download_says_what_is_kept(fake_hub: Callable) -> None:
    fake_hub(_info("model.safetensors"), _connection_lost())
    with pytest.raises(ModelUnreachable, match="what has arrived is kept"):
        loading.load(ID)


@pytest.mark.parametrize(
    ("files", "error"),
    [
        (("config.json", "pytorch_model.bin"), ModelUnsafe),
        (("config.json", "tf_model.h5"), ModelUnsafe),
        (("config.json", "README.md"), ModelNotFound),
        (("config.json", "onnx/model.safetensors"), ModelNotFound),
    ],
)
def test_files_are_judged_before_the_download(
    fake_hub: Callable, files: tuple[str, ...], error: type[ModelError]
) -> None:
    calls = fake_hub(_info(*files))
    with pytest.raises(error):
        loading.load(ID)
    assert not any("downloaded" in call for call in calls)


def test_size_is_judged_before_the_download(fake_hub: Callable) -> None:
    calls = fake_hub(_info("model.safetensors", parameters={"BF16": 10**12}))
    with pytest.raises(ModelTooLarge, match=r"TiB|GiB"):
        loading.load(ID, device="cpu")
    assert not any("downloaded" in call for call in calls)


def test_the_disk_is_judged_before_the_download(
    fake_hub: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_hub(_info("model.safetensors", size=10**6))
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda _folder: SimpleNamespace(free=10))
    with pytest.raises(ModelTooLarge, match="HF_HOME"):
        loading.load(ID)


def test_only_wanted_files_of_one_commit_are_fetched(
    fake_hub: Callable, saved_folder: Path
) -> None:
    calls = fake_hub(_info("model.safetensors", "config.json"), saved_folder)
    model = loading.load(ID, revision="main", device="cpu")
    assert model.revision == "c0ffee"
    assert calls[-1]["revision"] == "c0ffee"
    assert "*.bin" in calls[-1]["ignore_patterns"]
    assert "*.py" in calls[-1]["ignore_patterns"]


@pytest.mark.parametrize("revision", ["../main", "a b", "x" * 201, "", "main\n", "/etc"])
def test_bad_revisions_never_reach_the_hub(fake_hub: Callable, revision: str) -> None:
    calls = fake_hub(_info("model.safetensors"))
    with pytest.raises(ModelNotFound, match="not a revision"):
        loading.load(ID, revision=revision)
    assert calls == []


def test_download_progress_counts_bytes(
    monkeypatch: pytest.MonkeyPatch, saved_folder: Path
) -> None:
    seen: list[tuple[float, str]] = []

    def snapshot_download(_repository: str, *, tqdm_class: type, **_others: object) -> str:
        files = tqdm_class(total=2, desc="Fetching 2 files")
        with tqdm_class(total=1000, unit="B", unit_scale=True, name="some.name") as bar:
            bar.update(250)
            bar.update(750)
        files.update(2)
        files.close()
        return str(saved_folder)

    info = _info("model.safetensors", size=1000)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_a, **_k: info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    hub.download(ID, None, lambda *step: seen.append(step), room=lambda *_: None)
    assert [share for share, _ in seen] == [0.0, 0.25, 1.0]
    assert seen[1][1] == "downloading, 250 bytes of 1000 bytes"


def test_the_stored_dtype_reaches_the_room_check(fake_hub: Callable, saved_folder: Path) -> None:
    fake_hub(_info("model.safetensors", parameters={"BF16": 90, "F32": 10}), saved_folder)
    asked: list[tuple[int, torch.dtype]] = []
    hub.download(ID, None, lambda *_: None, room=lambda *size: asked.append(size))
    assert asked == [(100, torch.bfloat16)]
