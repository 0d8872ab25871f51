"""Models of the Hugging Face Hub: judged by their listing before any weights are fetched."""

import io
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
import torch
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id
from tqdm.auto import tqdm

from attnscope.kernels.errors import (
    ModelAccessDenied,
    ModelError,
    ModelNotFound,
    ModelTooLarge,
    ModelUnreachable,
)
from attnscope.models.checkpoint import check_weight_files, weight_files
from attnscope.models.memory import in_words

Progress = Callable[[float, str], None]
"""Called with the share done, 0 to 1, and what is being done; what it raises ends the work."""

_REVISION = re.compile(r"(?!.*\.\.)(?!/)[A-Za-z0-9._/\-]{1,200}(?<!/)")
_WANTED = (
    "*.json",
    "*.safetensors",
    "*.model",
    "*.spm",
    "*.txt",
    "*.jinja",
    "tokenizer*",
    "vocab*",
    "merges*",
)
_UNWANTED = ("*/*", "*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.onnx", "*.gguf", "*.py")
_TIMEOUT_S = 15.0
_CONNECTION_ERRORS: tuple[type[Exception], ...] = (
    HfHubHTTPError.__mro__[1],
    OfflineModeIsEnabled,
    ConnectionError,
    TimeoutError,
)
"""First the HTTP library's base error: which library depends on huggingface_hub's version."""


def check_id(repository: str, revision: str | None) -> None:
    """Refuses what cannot be an id or a revision, before anything touches disk or network.

    Raises:
        ModelNotFound: Says what an id looks like.
    """
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        shown = repository if len(repository) <= 60 else f"{repository[:57]}..."
        raise ModelNotFound(
            f"{shown!r} is neither a model of the hub nor an existing folder.",
            "Write a hub id such as openai-community/gpt2, or a folder's path from / or ./",
        ) from error
    if revision is not None and not _REVISION.fullmatch(revision):
        raise ModelNotFound(
            f"{revision[:60]!r} is not a revision.",
            "Give a branch, a tag or a commit hash, or leave it empty.",
        )


def download(
    repository: str,
    revision: str | None,
    progress: Progress,
    *,
    room: Callable[[int, torch.dtype], None],
) -> tuple[Path, str]:
    """The folder of a hub model in the local cache, downloaded where needed.

    Args:
        repository: A checked id.
        revision: Branch, tag or commit; the default branch when None.
        progress: Called as bytes arrive.
        room: Called with the number of parameters and their stored dtype before the download;
            raises ModelTooLarge.

    Returns:
        The folder and the commit.

    Raises:
        ModelNotFound: No such repository or revision, or no weights in it.
        ModelAccessDenied: Gated or private.
        ModelUnreachable: No connection, and not in the cache.
        ModelUnsafe: Only pickled weights.
        ModelTooLarge: The disk or the memory cannot hold it.
    """
    progress(0.0, f"asking the hub for {repository}")
    with in_our_words(repository, revision):
        try:
            info = huggingface_hub.HfApi().model_info(
                repository, revision=revision, files_metadata=True, timeout=_TIMEOUT_S
            )
        except _CONNECTION_ERRORS as error:
            if isinstance(error, HfHubHTTPError) and not _is_server_trouble(error):
                raise
            return _cached(repository, revision)
        files = [sibling for sibling in info.siblings or [] if "/" not in sibling.rfilename]
        names = [file.rfilename for file in files]
        check_weight_files(names, repository)
        stored = {file for file in names if file.endswith(".safetensors")}
        unread = stored - set(weight_files(names))
        if info.safetensors is not None and info.safetensors.parameters:
            widest = max(info.safetensors.parameters.items(), key=lambda item: item[1])[0]
            room(sum(info.safetensors.parameters.values()), _DTYPES.get(widest, torch.float32))
        size = sum(
            file.size or 0
            for file in files
            if Path(file.rfilename).suffix in (".safetensors", ".json", ".model")
            and file.rfilename not in unread
        )
        commit = info.sha or revision or "main"
        _check_disk(repository, size)
        folder = huggingface_hub.snapshot_download(
            repository,
            revision=commit,
            allow_patterns=list(_WANTED),
            ignore_patterns=[*_UNWANTED, *unread],
            tqdm_class=_bar(size, progress),
        )
    return Path(folder), commit


_DTYPES = {"F64": torch.float64, "F16": torch.float16, "BF16": torch.bfloat16}


def _cached(repository: str, revision: str | None) -> tuple[Path, str]:
    folder = Path(
        huggingface_hub.snapshot_download(repository, revision=revision, local_files_only=True)
    )
    return folder, folder.name


def _check_disk(repository: str, size: int) -> None:
    cache = Path(constants.HF_HUB_CACHE)
    existing = next((folder for folder in (cache, *cache.parents) if folder.is_dir()), Path("/"))
    free = shutil.disk_usage(existing).free
    if size > free:
        raise ModelTooLarge(
            f"{repository} is a download of {in_words(size)}, "
            f"and the disk of the model cache has {in_words(free)} left.",
            "Free some space, or set HF_HOME to a folder on a larger disk.",
        )


def _is_server_trouble(error: HfHubHTTPError) -> bool:
    return error.response is not None and error.response.status_code >= 500


@contextmanager
def in_our_words(repository: str, revision: str | None) -> Iterator[None]:
    """Errors of the hub's client as ours; the order matters, as they inherit from each other."""
    try:
        yield
    except ModelError:
        raise
    except GatedRepoError as error:
        raise ModelAccessDenied(
            f"{repository} is gated: its owner asks you to accept a licence first.",
            f"Accept it on https://huggingface.co/{repository}, "
            "then set HF_TOKEN to a token of that account.",
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelNotFound(
            f"The hub has no model {repository}, or it is private.",
            "Check the spelling; for a private model set HF_TOKEN.",
        ) from error
    except RevisionNotFoundError as error:
        raise ModelNotFound(
            f"{repository} has no revision {revision!r}.",
            "Give a branch, tag or commit of it, or leave it empty.",
        ) from error
    except LocalEntryNotFoundError as error:
        raise ModelUnreachable(
            f"The hub cannot be reached, and {repository} is not in the local cache.",
            "Check the connection (and HF_HUB_OFFLINE), or use the demo model or a local folder.",
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no status"
        if status in (401, 403):
            raise ModelAccessDenied(
                f"The hub refuses access to {repository} ({status}).",
                "Set HF_TOKEN to a token that may read it.",
            ) from error
        raise ModelUnreachable(
            f"The hub answered {status} for {repository}.", "Try again in a while."
        ) from error
    except _CONNECTION_ERRORS as error:
        raise ModelUnreachable(
            f"The download of {repository} was cut off ({type(error).__name__}).",
            "Check the connection and try again: what has arrived is kept.",
        ) from error


def _bar(size: int, progress: Progress) -> type[tqdm]:
    """A tqdm class that reports to `progress` and writes nothing to the terminal."""
    lock = threading.Lock()

    class Reporting(tqdm):
        def __init__(self, *args: object, **kwargs: object) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "file": io.StringIO(), "disable": False})  # pyright: ignore[reportArgumentType, reportCallIssue]

        def update(self, n: float | None = 1) -> bool | None:
            shown = super().update(n)
            if self.unit == "B" and size:
                with lock:
                    done = min(float(self.n), float(size))
                    progress(done / size, f"downloading, {in_words(int(done))} of {in_words(size)}")
            return shown

    return Reporting
