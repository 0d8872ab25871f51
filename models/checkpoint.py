"""A folder with a model in it, judged before anything is loaded: kind, dangers, size."""

import json
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import (
    CONFIG_MAPPING_NAMES,  # pyright: ignore[reportPrivateImportUsage]
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_IMAGE_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
    MODEL_MAPPING_NAMES,
)

from attnscope.kernels.errors import ModelNotFound, ModelUnsafe, ModelUnsupported

Kind = Literal["decoder", "encoder", "encoder-decoder"]

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".h5", ".msgpack", ".npz")
"""Weights in formats that can run code when read, or that are not read here."""

READS_PICTURES = "vision-encoder-decoder"
"""The model type whose source is a picture."""

PICTURE_ENCODERS = frozenset(
    {
        *(
            "vit",
            "deit",
            "beit",
            "dinov2",
            "dinov2_with_registers",
            "dinov3_vit",
            "ijepa",
            "vit_msn",
        ),
        *("clip_vision_model", "siglip_vision_model", "mlcd_vision_model"),
    }
)
"""The model types that read a picture alone, every patch of it attending to every other."""
TOWERS = {"clip": "clip_vision_model", "siglip": "siglip_vision_model"}
"""Of models that compare a text with a picture, the part that reads the picture: it is opened alone."""

_PICTURE_TYPES = {
    *(*PICTURE_ENCODERS, *TOWERS),
    *(*MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES, *MODEL_FOR_IMAGE_MAPPING_NAMES),
}
_NOT_TEXT = {
    "image_size",
    "patch_size",
    "num_mel_bins",
    "num_frames",
    "vision_config",
    "audio_config",
}
TEXT_PARTS = frozenset(
    name for name in MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES.values() if name.endswith("EncoderModel")
)
"""Encoders of text that transformers loads out of an encoder-decoder, such as T5's."""
_LONGEST_HEADER = 100 << 20
_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I64": 8,
    "I32": 4,
    "I8": 1,
    "U8": 1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a folder holds, read from its JSON and from the headers of its safetensors only.

    Attributes:
        folder: Where.
        kind: decoder, encoder or encoder-decoder.
        model_type: transformers' name of the architecture family, of a tower that of the tower.
        has_head: Whether the checkpoint was saved with a head that says tokens, or a picture's class.
        is_part: Whether it is the encoder of an encoder-decoder, saved alone.
        dtype: The dtype most of the weights are stored in.
        parameters: How many numbers the weights hold.
        stored_bytes: Their size on disk.
        note: What a visitor should know, or an empty string.
    """

    folder: Path
    kind: Kind
    model_type: str
    has_head: bool
    is_part: bool
    dtype: torch.dtype
    parameters: int
    stored_bytes: int
    note: str

    def bytes_as(self, dtype: torch.dtype) -> int:
        """The size of the weights in memory when loaded as `dtype`."""
        return self.parameters * dtype.itemsize


def inspect(folder: Path, name: str) -> Checkpoint:
    """Judges a folder without loading it.

    Args:
        folder: An existing folder.
        name: What the visitor called it, for messages.

    Raises:
        ModelNotFound: No configuration or no weights in it.
        ModelUnsafe: It holds only pickles, or its architecture is code of its own.
        ModelUnsupported: Not a text model that is a decoder or an encoder, or a damaged file.
    """
    config = read_config(folder / "config.json", name)
    files = [path.name for path in folder.iterdir() if path.is_file()]
    check_weight_files(files, name)
    kind, model_type, has_head = judge_config(config, name)
    headers = [_header(folder / file, name) for file in weight_files(files)]
    counts: dict[str, int] = {}
    for header in headers:
        for tensor in header.values():
            counts[tensor["dtype"]] = counts.get(tensor["dtype"], 0) + _elements(tensor["shape"])
    pickled = sorted(
        file for file in files if file.endswith(PICKLES) and file != "training_args.bin"
    )
    return Checkpoint(
        folder=folder,
        kind=kind,
        model_type=model_type,
        has_head=has_head,
        is_part=_architecture(config) in TEXT_PARTS,
        dtype=_torch_dtype(max(counts, key=lambda dtype: counts[dtype])),
        parameters=sum(counts.values()),
        stored_bytes=sum(_BYTES.get(dtype, 4) * count for dtype, count in counts.items()),
        note=f"The safetensors weights are used; {', '.join(pickled[:3])} is never read."
        if pickled
        else "",
    )


def reads_pictures(config: PreTrainedConfig) -> bool:
    """Whether such a model reads a picture first, and no text."""
    return config.model_type in {READS_PICTURES, *PICTURE_ENCODERS, *TOWERS}


def read_config(file: Path, name: str) -> dict[str, object]:
    """The model's configuration as JSON.

    Raises:
        ModelNotFound: There is none.
        ModelUnsupported: It is not a JSON object.
    """
    if not file.is_file():
        raise ModelNotFound(
            f"{name} holds no config.json, so it is not a transformers model.",
            "Give the folder that holds config.json and the safetensors files.",
        )
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelUnsupported(
            f"The config.json of {name} is not readable JSON: {error}.", "Download it again."
        ) from error
    if not isinstance(config, dict):
        raise ModelUnsupported(
            f"The config.json of {name} is not a JSON object.", "Download it again."
        )
    return config


def check_weight_files(files: Iterable[str], name: str) -> None:
    """Refuses what has no safetensors.

    Raises:
        ModelUnsafe: There are weights, but only pickled ones.
        ModelNotFound: There are no weights at all.
    """
    names = list(files)
    if any(file.endswith(".safetensors") for file in names):
        return
    pickled = sorted(file for file in names if file.endswith(PICKLES))
    if pickled:
        raise ModelUnsafe(
            f"{name} holds its weights only as {', '.join(pickled[:3])}: "
            "a format that can run code when it is read.",
            "Convert it to safetensors (model.save_pretrained(folder)), or choose another model.",
        )
    raise ModelNotFound(
        f"{name} holds no weights.", "Give a model with *.safetensors files beside its config.json."
    )


def weight_files(files: Iterable[str]) -> list[str]:
    """The safetensors files that transformers reads; some repositories hold their weights twice."""
    own = re.compile(r"model(-[0-9]+-of-[0-9]+)?\.safetensors")
    found = sorted(file for file in files if file.endswith(".safetensors"))
    return [file for file in found if own.fullmatch(file)] or found


def judge_config(config: dict[str, object], name: str) -> tuple[Kind, str, bool]:
    """Kind, model type, and whether there is a head that says tokens, or a picture's class.

    Raises:
        ModelUnsafe: The architecture is code that lies beside the weights.
        ModelUnsupported: transformers does not ship it, or it is no decoder or encoder of text, and no
            vision transformer.
    """
    model_type = str(config.get("model_type", ""))
    if model_type not in CONFIG_MAPPING_NAMES:
        if config.get("auto_map"):
            raise ModelUnsafe(
                f"{name} brings Python code of its own for its architecture "
                f"({model_type or 'unnamed'}); such code is never run.",
                "Choose a model whose architecture transformers ships.",
            )
        raise ModelUnsupported(
            f"{name} is a {model_type or 'nameless'} model, "
            "which the installed transformers does not know.",
            "Update transformers, or choose another model.",
        )
    architecture = _architecture(config)
    if architecture in TEXT_PARTS:
        return "encoder", model_type, False
    if config.get("is_encoder_decoder"):
        return _judge_pair(config, model_type, architecture, name)
    if model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.get("is_decoder"):
        return "encoder", model_type, architecture.endswith(("ForMaskedLM", "ForPreTraining"))
    if model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return (
            "decoder",
            model_type,
            not architecture
            or architecture.endswith(("CausalLM", "LMHeadModel", "ConditionalGeneration")),
        )
    if model_type in _PICTURE_TYPES:
        return _judge_picture_encoder(config, model_type, architecture, name)
    if model_type in MODEL_MAPPING_NAMES and not _NOT_TEXT & set(config):
        return "encoder", model_type, False
    raise ModelUnsupported(
        f"{name} is a {model_type} model, not a decoder or an encoder of text, and not a vision transformer.",
        "Choose a decoder such as GPT-2 or Qwen, or an encoder such as BERT or ViT.",
    )


def _architecture(config: dict[str, object]) -> str:
    """The class that the checkpoint was saved from; empty where it does not say."""
    named = config.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else ""


def _judge_picture_encoder(
    config: dict[str, object], model_type: str, architecture: str, name: str
) -> tuple[Kind, str, bool]:
    """As `judge_config`, of what reads a picture alone."""
    if model_type in TOWERS:
        return "encoder", TOWERS[model_type], False
    if config.get("use_relative_position_bias") or config.get("use_shared_relative_position_bias"):
        raise ModelUnsupported(
            f"{name} adds a bias of the places of two patches to each score, which no backend here computes.",
            "Choose a vision transformer without one, such as ViT, DINOv2 or CLIP.",
        )
    if model_type in PICTURE_ENCODERS:
        return "encoder", model_type, "ForImageClassification" in architecture
    raise ModelUnsupported(
        f"{name} reads pictures, and is no vision transformer in which each patch attends to all: a {model_type} "
        "model works in windows or stages, with convolutions, on a part of the patches or on several pictures.",
        "Choose ViT, DeiT, DINOv2, CLIP or SigLIP.",
    )


def _judge_pair(
    config: dict[str, object], model_type: str, architecture: str, name: str
) -> tuple[Kind, str, bool]:
    """As `judge_config`, of an encoder-decoder: of text, or with a vision encoder."""
    reads_text = model_type in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    if model_type != READS_PICTURES and (not reads_text or _NOT_TEXT & set(config)):
        raise ModelUnsupported(
            f"{name} is an encoder-decoder ({model_type}) that reads neither text nor pictures.",
            "Choose one of text, such as BART or Marian, or a vision encoder with a text decoder.",
        )
    if architecture and not architecture.endswith(
        ("ConditionalGeneration", "MTModel", "LMHeadModel", "EncoderDecoderModel")
    ):
        raise ModelUnsupported(
            f"{name} is an encoder-decoder without a language-model head ({architecture}).",
            "Choose a checkpoint that says text, such as facebook/bart-large-cnn.",
        )
    return "encoder-decoder", model_type, True


def _header(file: Path, name: str) -> dict[str, dict]:
    """The tensors of a safetensors file, from its header; the first 8 bytes are its length."""
    damaged = ModelUnsupported(
        f"{file.name} of {name} is not a readable safetensors file.", "Download it again."
    )
    with file.open("rb") as stream:
        prefix = stream.read(8)
        if len(prefix) < 8:
            raise damaged
        (length,) = struct.unpack("<Q", prefix)
        if length > min(_LONGEST_HEADER, file.stat().st_size):
            raise damaged
        try:
            header = json.loads(stream.read(length))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise damaged from error
    if not isinstance(header, dict):
        raise damaged
    tensors = {key: tensor for key, tensor in header.items() if key != "__metadata__"}
    if not tensors or not all(map(_is_tensor, tensors.values())):
        raise damaged
    return tensors


def _is_tensor(described: object) -> bool:
    if not isinstance(described, dict) or not isinstance(described.get("dtype"), str):
        return False
    shape = described.get("shape")
    return isinstance(shape, list) and all(isinstance(size, int) and size >= 0 for size in shape)


def _elements(shape: Iterable[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _torch_dtype(stored: str) -> torch.dtype:
    return {"F64": torch.float64, "F16": torch.float16, "BF16": torch.bfloat16}.get(
        stored, torch.float32
    )
