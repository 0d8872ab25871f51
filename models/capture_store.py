"""A capture on disk: `capture.safetensors`, memory-mapped when read, and `capture.json`."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from attnscope.kernels.errors import CaptureMissing, InvalidCall
from attnscope.kernels.patterns.catalogue import FAMILIES, pattern
from attnscope.kernels.patterns.causal import Causal
from attnscope.kernels.patterns.composed import Composed
from attnscope.kernels.patterns.pattern import Pattern

_TENSORS = "capture.safetensors"
_FACTS = "capture.json"


def write(folder: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, object]) -> Path:
    """Writes both files, the JSON last, so that a folder with the JSON is whole.

    Args:
        folder: Made if missing.
        tensors: By name.
        facts: Anything JSON holds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _FACTS).unlink(missing_ok=True)
    save_file(dict(_alone(tensors)), folder / _TENSORS)
    (folder / _FACTS).write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")
    return folder


def _alone(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Each in memory of its own, as the format wants: only what is shared, or a part, is copied."""
    seen: set[int] = set()
    for name, tensor in tensors.items():
        held = tensor.detach().cpu().contiguous()
        memory = held.untyped_storage()
        if memory.data_ptr() in seen or memory.nbytes() != held.nbytes:
            held = held.clone()
        seen.add(held.untyped_storage().data_ptr())
        yield name, held


def read(folder: Path, schema: int) -> tuple["StoredTensors", dict[str, object]]:
    """Opens both files.

    Args:
        folder: Where `write` wrote.
        schema: The version the caller understands.

    Raises:
        CaptureMissing: Nothing there, damaged, or of another version.
    """
    file = folder / _FACTS
    if not file.is_file():
        raise CaptureMissing(f"There is no capture in {folder}.", "Run the prompt again.")
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        tensors = StoredTensors(folder / _TENSORS)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, SafetensorError) as error:
        raise CaptureMissing(
            f"The capture in {folder} is damaged.", "Run the prompt again."
        ) from error
    if facts.get("schema") != schema:
        raise CaptureMissing(
            f"The capture in {folder} is of version {facts.get('schema')}; "
            f"this program reads {schema}.",
            "Run the prompt again.",
        )
    return tensors, facts


class StoredTensors(Mapping[str, Tensor]):
    """The tensors of a memory-mapped file by name; each is read from disk when it is touched.

    Args:
        file: A safetensors file.
    """

    def __init__(self, file: Path) -> None:
        self._file = safe_open(file, framework="pt", device="cpu")
        self._names = frozenset(self._file.keys())

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        return self._file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def pattern_to_json(one: Pattern) -> dict[str, object]:
    """A pattern's key and parameters.

    Raises:
        InvalidCall: It is a rule of its own, a function, which has no such form.
    """
    inner, causal = one, False
    if isinstance(one, Composed) and isinstance(one.second, Causal):
        inner, causal = one.first, True
    if not _is_of_families(inner):
        raise InvalidCall(
            f"The rule {one.title!r} has no form in JSON: it is a function of the model.",
            "Tabulate it first.",
        )
    return {"key": inner.key, "causal": causal, "parameters": dict(inner.parameters)}


def _is_of_families(one: Pattern) -> bool:
    if isinstance(one, Composed):
        return _is_of_families(one.first) and _is_of_families(one.second)
    return one.key in FAMILIES


def pattern_from_json(described: Mapping) -> Pattern:
    """The pattern that `pattern_to_json` described."""
    return pattern(described["key"], causal=described["causal"], **described["parameters"])
