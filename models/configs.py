"""Configurations of transformers from wherever they come: an object, JSON, a folder, the hub."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import (
    CONFIG_MAPPING_NAMES,  # pyright: ignore[reportPrivateImportUsage]
)

from attnscope.kernels.errors import ModelUnsafe, ModelUnsupported
from attnscope.models import hub
from attnscope.models.checkpoint import read_config
from attnscope.models.shipped import SHIPPED

Source = PreTrainedConfig | Mapping[str, Any] | str | Path

_LONGEST_JSON = 1 << 20


def read(source: Source, *, revision: str | None = None) -> PreTrainedConfig:
    """The configuration of a model; no weights are fetched.

    Args:
        source: A configuration, a mapping or JSON text of one with its `model_type`, a name of
            `SHIPPED`, a folder or a config.json written as an absolute path or starting with `./`, or a hub id.
        revision: Branch, tag or commit of a hub model.

    Raises:
        ModelNotFound: No such folder, repository or revision, or no configuration in it.
        ModelAccessDenied: Gated or private.
        ModelUnreachable: The hub cannot be reached and the model is not cached.
        ModelUnsafe: The architecture is code that lies beside the weights.
        ModelUnsupported: No JSON object, or no architecture that transformers ships.
    """
    if isinstance(source, PreTrainedConfig):
        return source
    if isinstance(source, Mapping):
        return _from_json(dict(source), "the configuration")
    text = str(source).strip()
    if text.startswith("{"):
        return _from_json(_parse(text), "the configuration")
    if text in SHIPPED:
        return _from_json(read_config(SHIPPED[text].folder / "config.json", text), text)
    if text.startswith(("/", "./")):
        path = Path(text)
        file = path if path.suffix == ".json" else path / "config.json"
        return _from_json(read_config(file, text), text)
    return _from_json(_from_hub(text, revision), text)


def _parse(text: str) -> dict[str, Any]:
    if len(text) > _LONGEST_JSON:
        raise ModelUnsupported(
            f"The configuration is {len(text)} characters long, over the limit of {_LONGEST_JSON}.",
            "Paste a config.json.",
        )
    try:
        parsed = json.loads(text)
    except json.JSONDecodeError as error:
        raise ModelUnsupported(
            f"The configuration is not readable JSON: {error}.", "Paste a whole config.json."
        ) from error
    return parsed


def _from_hub(repository: str, revision: str | None) -> dict[str, Any]:
    hub.check_id(repository, revision)
    with hub.in_our_words(repository, revision):
        file = huggingface_hub.hf_hub_download(repository, "config.json", revision=revision)
    return read_config(Path(file), repository)


def _from_json(fields: dict[str, Any], name: str) -> PreTrainedConfig:
    model_type = fields.get("model_type")
    if model_type not in CONFIG_MAPPING_NAMES:
        if fields.get("auto_map"):
            raise ModelUnsafe(
                f"{name} brings Python code of its own for its architecture "
                f"({model_type or 'unnamed'}); such code is never run.",
                "Choose a model whose architecture transformers ships.",
            )
        if not model_type:
            raise ModelUnsupported(
                f"{name} has no model_type, so its architecture is unknown.",
                'Add one, such as "model_type": "llama".',
            )
        raise ModelUnsupported(
            f"{name} is a {model_type} model, which the installed transformers does not know.",
            "Update transformers, or choose another model.",
        )
    values = {key: value for key, value in fields.items() if key != "model_type"}
    try:
        return AutoConfig.for_model(str(model_type), **values)
    except Exception as error:
        raise ModelUnsupported(
            f"{name} is no configuration that transformers accepts: "
            f"{str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__}",
            "Correct that field.",
        ) from error
