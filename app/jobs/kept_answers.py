"""Answers that are kept as JSON: beside the capture that they are about, or in a folder of their own."""

import json
import math
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

FORM = 2
"""Raised when any answer that is kept gets other fields or numbers: what was kept before is then made anew."""


def rounded(values: NDArray[Any]) -> list[list[float | None]]:
    """Five digits, which JSON holds in short; None for what is no number."""
    return [
        [float(f"{v:.5g}") if math.isfinite(v) else None for v in line] for line in values.tolist()
    ]


def written(answer: dict[str, Any]) -> str:
    """An answer as it is kept, on one line; `read` takes it."""
    return json.dumps({"form": FORM, "answer": answer})


def read(text: str) -> dict[str, Any] | None:
    """An answer as it was written; None of one that has another form, or is damaged."""
    try:
        kept = json.loads(text)
    except ValueError:
        return None
    is_of_today = isinstance(kept, dict) and kept.get("form") == FORM
    return kept.get("answer") if is_of_today else None


def keep(path: Path, answer: dict[str, Any]) -> None:
    """Write an answer into its capture's folder, whole or not at all."""
    unfinished = path.with_suffix(f".{secrets.token_hex(4)}.part")
    # Another process may just have removed the folder: then there is nothing to keep the answer for.
    with suppress(FileNotFoundError):
        unfinished.write_text(written(answer), encoding="utf-8")
        unfinished.replace(path)


def kept(path: Path) -> dict[str, Any] | None:
    """The answer that a file holds; None where there is none, or none of today's form."""
    try:
        return read(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError):
        return None
