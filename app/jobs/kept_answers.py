"""Answers that are kept as JSON beside the capture that they are about."""

import math
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from numpy.typing import NDArray


def rounded(values: NDArray[Any]) -> list[list[float | None]]:
    """Five digits, which JSON holds in short; None for what is no number."""
    return [
        [float(f"{v:.5g}") if math.isfinite(v) else None for v in line] for line in values.tolist()
    ]


def write_beside(path: Path, text: str) -> None:
    """Write an answer into its capture's folder, whole or not at all."""
    unfinished = path.with_suffix(f".{secrets.token_hex(4)}.part")
    # Another process may just have removed the folder: then there is nothing to keep the answer for.
    with suppress(FileNotFoundError):
        unfinished.write_text(text)
        unfinished.replace(path)
