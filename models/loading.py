"""Opening a model: the demo, a local folder, a hub id; safetensors only, no foreign code."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from attnscope.kernels.errors import (
    InvalidCall,
    ModelNotFound,
    ModelTooLarge,
    ModelUnsupported,
)
from attnscope.models import hub, opening
from attnscope.models.checkpoint import Checkpoint, Kind, inspect
from attnscope.models.hub import Progress
from attnscope.models.memory import available_bytes, in_words
from attnscope.models.shipped import SHIPPED
from attnscope.models.tokens import TokenDisplay

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_LONGEST_SOURCE = 500
_DOWNLOAD_SHARE = 0.6
_WORKING_SPACE = 1.2
"""Memory asked for over that of the weights: activations and the loader's buffers need some."""


@dataclass(kw_only=True, eq=False)
class LoadedModel:
    """A live model with its tokenizer, ready to be inspected; shared, so hold `lock` while it runs.

    Attributes:
        model: In eval mode, on `device`.
        display: Its tokenizer's tokens as people read them; None of one that reads a picture alone.
        source: What was asked for: a name of `SHIPPED`, a folder, a hub id.
        revision: The commit of a hub model, else None.
        kind: decoder, encoder or encoder-decoder.
        title: A short name for people.
        device: Where it lives.
        dtype: Of its weights.
        nbytes: Of its weights and buffers.
        parameters: How many, shared ones once.
        max_length: The longest prompt in tokens its positions allow, or None when nothing limits
            it.
        has_head: Whether it predicts tokens, or the class of a picture.
        note: What a visitor should know about how it was loaded, or an empty string.
        image_processor: Prepares the pictures that it reads in place of a text, or None.
        lock: Held by whoever runs or swaps the model.
        memo: What later work found out about this model and keeps with it.
    """

    model: PreTrainedModel
    display: TokenDisplay | None
    source: str
    revision: str | None
    kind: Kind
    title: str
    device: torch.device
    dtype: torch.dtype
    nbytes: int
    parameters: int
    max_length: int | None
    has_head: bool
    note: str = ""
    image_processor: Any = None
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    memo: dict[str, object] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None,
        *,
        source: str = "given",
        revision: str | None = None,
        kind: Kind | None = None,
        has_head: bool = True,
        note: str = "",
        image_processor: Any = None,
    ) -> "LoadedModel":
        """Wraps a live model and its tokenizer.

        Args:
            model: Is put into eval mode.
            tokenizer: Its tokenizer; None of one that reads a picture alone.
            source: See the attribute.
            revision: See the attribute.
            kind: Told from the class's name when None.
            has_head: See the attribute.
            note: See the attribute.
            image_processor: See the attribute.
        """
        weights = list(model.parameters())
        first = weights[0]
        return cls(
            model=model.eval(),
            display=None if tokenizer is None else TokenDisplay.of(tokenizer),
            source=source,
            revision=revision,
            kind=kind or _kind(model),
            title=_title(source, model),
            device=first.device,
            dtype=first.dtype,
            nbytes=sum(tensor.nbytes for tensor in [*weights, *model.buffers()]),
            parameters=sum(weight.numel() for weight in weights),
            max_length=_max_length(model, tokenizer),
            has_head=has_head,
            note=note,
            image_processor=image_processor,
        )

    @property
    def reads_pictures(self) -> bool:
        """Whether what it reads first is a picture, and no text."""
        return self.image_processor is not None

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """As transformers loads it.

        Raises:
            ModelUnsupported: It reads a picture alone.
        """
        return self._text().tokenizer

    def tokens(self, ids: Sequence[int]) -> tuple[str, ...]:
        """The exact text of each token, see `TokenDisplay.pieces`."""
        return self._text().pieces(ids)

    def words(self, ids: Sequence[int]) -> tuple[int, ...]:
        """The word each token belongs to, see `TokenDisplay.words`."""
        return self._text().words(ids)

    def marks(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Where the tokenizer's own marks are, see `TokenDisplay.marks`."""
        return self._text().marks(ids)

    @property
    def special(self) -> frozenset[int]:
        """The ids of the tokenizer's marks, see `TokenDisplay`."""
        return self._text().special

    def _text(self) -> TokenDisplay:
        if self.display is None:
            raise ModelUnsupported(
                f"{self.title} reads a picture: it has no tokens of a text.",
                "Choose a model that reads text.",
            )
        return self.display


def load(
    source: str,
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    progress: Progress | None = None,
    memory_limit: int | None = None,
) -> LoadedModel:
    """Opens a model.

    Args:
        source: A name of `SHIPPED` ("demo"), an existing folder written as an absolute path or starting with `./`, or a
            hub id.
        revision: Branch, tag or commit of a hub model.
        device: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1".
        dtype: "auto" (as stored on CUDA, float32 on a CPU), "float32", "bfloat16", "float16".
        progress: Called with the share done and the step; what it raises ends the loading.
        memory_limit: Bytes the model may take, where that is less than what the device has left.

    Raises:
        ModelNotFound: No such folder, repository, revision, or no model in it.
        ModelAccessDenied: Gated or private.
        ModelUnreachable: The hub cannot be reached and the model is not cached.
        ModelUnsafe: Pickled weights or code of its own.
        ModelTooLarge: Does not fit the memory or the disk.
        ModelUnsupported: No decoder, encoder, encoder-decoder or vision transformer that the installed
            transformers ships.
        InvalidCall: No such device or dtype.
    """
    report = progress or _silent
    wanted = _Wanted(_device(device), _dtype(dtype), memory_limit)
    folder, commit = _locate(source, revision, report, wanted)
    checkpoint = inspect(folder, source)
    _check_room(source, checkpoint.parameters, checkpoint.dtype, wanted)
    report(_DOWNLOAD_SHARE, f"reading {in_words(checkpoint.stored_bytes)} of weights")
    loaded = _open(checkpoint, source, commit, wanted)
    report(1.0, f"{loaded.title} is ready")
    return loaded


@dataclass(frozen=True, slots=True)
class _Wanted:
    device: torch.device
    dtype: torch.dtype | None
    memory_limit: int | None

    def dtype_for(self, stored: torch.dtype) -> torch.dtype:
        if self.dtype is not None:
            return self.dtype
        return stored if self.device.type == "cuda" else torch.float32


def _locate(
    source: str, revision: str | None, report: Progress, wanted: _Wanted
) -> tuple[Path, str | None]:
    """The model's folder and its commit; only an explicit path touches the disk."""
    if not source.strip() or "\0" in source or len(source) > _LONGEST_SOURCE:
        raise ModelNotFound(
            "That is not a model's name." if source.strip() else "No model was named.",
            "Write demo, a hub id such as openai-community/gpt2, or a folder's path from / or ./",
        )
    if source in SHIPPED:
        return SHIPPED[source].folder, None
    if source.startswith(("/", "./")):
        folder = Path(source)
        if not _is_folder(folder):
            raise ModelNotFound(
                f"There is no folder {source}.",
                "Check the path; it must be a folder on this machine.",
            )
        return folder.resolve(), None
    hub.check_id(source, revision)

    def room(parameters: int, stored: torch.dtype) -> None:
        _check_room(source, parameters, stored, wanted)

    return hub.download(
        source, revision, lambda share, step: report(_DOWNLOAD_SHARE * share, step), room=room
    )


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that no disk can hold
        return False


def _check_room(source: str, parameters: int, stored: torch.dtype, wanted: _Wanted) -> None:
    dtype = wanted.dtype_for(stored)
    needed = int(parameters * dtype.itemsize * _WORKING_SPACE)
    limit = available_bytes(wanted.device)
    if wanted.memory_limit is not None:
        limit = max(0, min(limit, wanted.memory_limit))
    if needed <= limit:
        return
    smaller = parameters * 2 * _WORKING_SPACE <= limit and dtype.itemsize > 2
    raise ModelTooLarge(
        f"{source} needs {in_words(needed)} as {str(dtype).removeprefix('torch.')} "
        f"on {wanted.device}, and {in_words(limit)} can be had.",
        "Load it as bfloat16, which halves that."
        if smaller
        else "Close other models, or choose a smaller one.",
    )


def _open(checkpoint: Checkpoint, source: str, commit: str | None, wanted: _Wanted) -> LoadedModel:
    opened = opening.open_checkpoint(checkpoint, source, wanted.dtype_for(checkpoint.dtype))
    try:
        model = opened.model.to(wanted.device)
    except torch.OutOfMemoryError as error:
        raise ModelTooLarge(
            f"{source} did not fit on {wanted.device}.",
            "Close other models, or load it as bfloat16.",
        ) from error
    return LoadedModel.of(
        model,
        opened.tokenizer,
        source=source,
        revision=commit,
        kind=checkpoint.kind,
        has_head=checkpoint.has_head,
        note=checkpoint.note,
        image_processor=opened.image_processor,
    )


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InvalidCall(f"No device {name!r}.", "Use auto, cpu or cuda.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InvalidCall(f"This machine has no {name}.", "Use auto or cpu.")
    return device


def _dtype(name: str) -> torch.dtype | None:
    if name == "auto":
        return None
    if name not in DTYPES:
        raise InvalidCall(f"No dtype {name!r}.", f"Use auto, {', '.join(DTYPES)}.")
    return DTYPES[name]


def _max_length(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> int | None:
    """The least of what positions and tokenizer allow; a tokenizer's 10³⁰ means unknown."""
    if tokenizer is None:
        return None
    text = model.config.get_text_config()
    said = [getattr(text, name, None) for name in ("max_position_embeddings", "n_positions")]
    said.append(tokenizer.model_max_length)
    limits = [int(limit) for limit in said if isinstance(limit, int | float) and 0 < limit < 1e9]
    return min(limits, default=None)


def _kind(model: PreTrainedModel) -> Kind:
    if model.config.is_encoder_decoder:
        return "encoder-decoder"
    name = type(model).__name__
    return "decoder" if "CausalLM" in name or "LMHead" in name else "encoder"


def _title(source: str, model: PreTrainedModel) -> str:
    if source in SHIPPED:
        return SHIPPED[source].title
    if source == "given":
        return str(model.config.model_type)
    return Path(source).name if source.startswith(("/", "./")) else source


def _silent(share: float, step: str) -> None:
    del share, step
