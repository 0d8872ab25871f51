"""Which models of the Hugging Face Hub lie on this machine already, without asking the network."""

import json
from dataclasses import dataclass

import huggingface_hub
from huggingface_hub.errors import CacheNotFound


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedModel:
    """One cached revision.

    Attributes:
        source: The hub id.
        revision: The commit.
        nbytes: Bytes on disk.
        architecture: The config's `model_type`; empty where there is no config.
        has_safetensors: Whether it can be loaded: other weights are never read.
    """

    source: str
    revision: str
    nbytes: int
    architecture: str
    has_safetensors: bool


def cached_models() -> tuple[CachedModel, ...]:
    """List the cached models by hub id; those that need nothing but the disk."""
    try:
        cache = huggingface_hub.scan_cache_dir()
    except CacheNotFound:
        return ()
    found = [
        CachedModel(
            source=repository.repo_id,
            revision=revision.commit_hash,
            nbytes=revision.size_on_disk,
            architecture=_architecture(revision),
            has_safetensors=any(file.file_name.endswith(".safetensors") for file in revision.files),
        )
        for repository in cache.repos
        if repository.repo_type == "model"
        for revision in repository.revisions
    ]
    return tuple(sorted(found, key=lambda model: (model.source, model.revision)))


def _architecture(revision: huggingface_hub.CachedRevisionInfo) -> str:
    config = next((file for file in revision.files if file.file_name == "config.json"), None)
    if config is None:
        return ""
    try:
        return str(json.loads(config.file_path.read_text(encoding="utf-8")).get("model_type", ""))
    except (OSError, ValueError, AttributeError):
        # A damaged config is reported when the model is loaded; a listing goes on.
        return ""
