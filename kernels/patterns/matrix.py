"""A mask that somebody drew, pair by pair."""

import hashlib
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnscope.kernels.errors import InvalidCall, UnknownPattern
from attnscope.kernels.patterns.pattern import Pattern


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix(Pattern):
    """Query i sees key j where `matrix[i, j]` is true; equal to another of the same content.

    Attributes:
        matrix: bool `[queries, keys]`, from position 0 on; a copy is kept, a byte a pair.
        content: SHA-256 of the shape and the pairs.
    """

    matrix: np.ndarray = field(repr=False, compare=False)
    content: str = field(init=False)
    _seen_QK: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        given: object = self.matrix
        if not isinstance(given, np.ndarray) or given.dtype != np.bool_ or given.ndim != 2:
            shown = f"{given.dtype} {given.shape}" if isinstance(given, np.ndarray) else repr(given)
            raise UnknownPattern(
                f"matrix must be a NumPy array of booleans [queries, keys], got {shown}.",
                "Convert it first: `np.asarray(rows) != 0`.",
            )
        if not given.size:
            raise UnknownPattern(f"matrix must have a query and a key, got shape {given.shape}.")
        kept = given.copy()
        hashed = hashlib.sha256(repr(kept.shape).encode() + np.packbits(kept).tobytes())
        object.__setattr__(self, "_seen_QK", torch.from_numpy(kept))
        object.__setattr__(self, "matrix", kept)
        object.__setattr__(self, "content", hashed.hexdigest())

    @property
    def key(self) -> str:
        """See `Pattern.key`."""
        return "matrix"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The matrix; it has no form that fits a link."""
        return {"matrix": self.matrix}

    @property
    def title(self) -> str:
        """Its shape."""
        return f"matrix ({self.matrix.shape[0]} by {self.matrix.shape[1]})"

    def visible(self, query_index: Tensor, key_index: Tensor) -> Tensor:
        """See `Pattern.visible`; the positions must be those of `check_lengths`."""
        return self._seen_QK.to(query_index.device)[query_index, key_index]

    def on(self, device: torch.device) -> "Matrix":
        """See `Pattern.on`."""
        moved = copy(self)
        object.__setattr__(moved, "_seen_QK", self._seen_QK.to(device))
        return moved

    def check_lengths(self, queries: range, key_length: int) -> None:
        """Raises InvalidCall where a position lies outside the matrix."""
        rows, columns = self.matrix.shape
        if queries.start < 0 or queries.stop > rows or key_length > columns:
            raise InvalidCall(
                f"the matrix speaks of {rows} queries and {columns} keys, and the call has queries "
                f"{queries.start} to {queries.stop - 1} and {key_length} keys.",
                "Give a matrix with a row for each position and a column for each key.",
            )
