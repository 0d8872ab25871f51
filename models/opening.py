"""From a folder that was judged to what transformers makes of it: a model, and what prepares its input."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForImageTextToText,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForTextEncoding,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)

from attnscope.kernels.errors import ModelUnsafe, ModelUnsupported
from attnscope.models.checkpoint import PICTURE_ENCODERS, READS_PICTURES, TOWERS, Checkpoint

_UNOPENED = (OSError, ValueError, RuntimeError, ImportError, KeyError, TypeError)
_UNREADABLE = (*_UNOPENED, AttributeError)
"""What transformers raises over files that it cannot read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What a folder holds, on the CPU.

    Attributes:
        model: With its head where it was saved with one.
        tokenizer: None of a model that reads a picture alone.
        image_processor: None of a model that reads text alone.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase | None
    image_processor: Any


def open_checkpoint(checkpoint: Checkpoint, source: str, dtype: torch.dtype) -> Opened:
    """Opens what a folder holds.

    Args:
        checkpoint: As `checkpoint.inspect` judged it.
        source: What the visitor called it, for messages.
        dtype: Of the weights.

    Raises:
        ModelUnsafe: Code of its own for its tokenizer.
        ModelUnsupported: transformers cannot read it, or it is not whole.
    """
    folder = checkpoint.folder
    reads_text = checkpoint.model_type not in PICTURE_ENCODERS
    reads_pictures = not reads_text or checkpoint.model_type == READS_PICTURES
    tokenizer = _tokenizer(folder, source) if reads_text else None
    return Opened(
        model=_model(checkpoint, source, dtype, reads_pictures=reads_pictures),
        tokenizer=tokenizer,
        image_processor=_image_processor(folder, source) if reads_pictures else None,
    )


def _model(checkpoint: Checkpoint, source: str, dtype: torch.dtype, *, reads_pictures: bool) -> Any:
    # Progress is ours to show; bars on the terminal of a worker help nobody.
    transformers.utils.logging.disable_progress_bar()
    try:
        model, found = _loader(checkpoint, reads_pictures=reads_pictures).from_pretrained(
            checkpoint.folder,
            **_tower(checkpoint),
            output_loading_info=True,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
    except (*_UNOPENED, SafetensorError) as error:
        raise ModelUnsupported(
            f"transformers could not open {source}: {_first_line(error)}",
            "Choose another model or revision.",
        ) from error
    _check_whole(found, source)
    return model


def _loader(checkpoint: Checkpoint, *, reads_pictures: bool) -> Any:
    """The automatic class of such a model."""
    if checkpoint.is_part:
        return AutoModelForTextEncoding
    with_head = {
        ("decoder", False): AutoModelForCausalLM,
        ("encoder", False): AutoModelForMaskedLM,
        ("encoder", True): AutoModelForImageClassification,
        ("encoder-decoder", False): AutoModelForSeq2SeqLM,
        ("encoder-decoder", True): AutoModelForImageTextToText,
    }
    return with_head[checkpoint.kind, reads_pictures] if checkpoint.has_head else AutoModel


def _tower(checkpoint: Checkpoint) -> dict[str, Any]:
    """Of a model that compares a text with a picture, the configuration of the part that is opened."""
    if checkpoint.model_type not in TOWERS.values():
        return {}
    config = AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True)
    return {"config": getattr(config, "vision_config", config)}


def _check_whole(found: dict[str, Any], source: str) -> None:
    """Transformers fills what a checkpoint lacks with random numbers, whose maps would mean nothing."""
    lacking = [*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])]
    # A pooler stands after the last layer, and nothing here reads it.
    made_up = sorted(name for name in lacking if "pooler" not in name)
    if made_up:
        raise ModelUnsupported(
            f"The weights of {source} lack {len(made_up)} that its config asks for, such as {made_up[0]}.",
            "Download it again, or choose a revision whose config and weights belong together.",
        )


def _tokenizer(folder: Path, source: str) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except _UNREADABLE as error:
        if "trust_remote_code" in str(error):
            raise ModelUnsafe(
                f"{source} brings Python code for its tokenizer; such code is never run.",
                "Choose a model whose tokenizer transformers ships.",
            ) from error
        raise ModelUnsupported(
            f"{source} has no tokenizer that can be read: {_first_line(error)}",
            "Choose a model that comes with its tokenizer files.",
        ) from error


def _image_processor(folder: Path, source: str) -> Any:
    try:
        return AutoImageProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
    except _UNREADABLE as error:
        raise ModelUnsupported(
            f"{source} does not say how its pictures are prepared.",
            "Choose a model that comes with its preprocessor_config.json.",
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
