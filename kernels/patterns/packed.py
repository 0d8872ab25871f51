"""Several documents in one row of a batch, each of which sees itself only."""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnscope.kernels.errors import UnknownPattern
from attnscope.kernels.patterns.pattern import (
    ENDLESS,
    SpanPattern,
    Spans,
    require_integer,
    spans,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed(SpanPattern):
    """i and j of one document: packed training (arXiv 2107.02027 §3), transformers' `position_ids`.

    Documents lie one after the other from position 0. What follows the last is one more document,
    without end: so every query sees itself, and a text of no document is as it would be alone. A
    decoder's causal rule or window is composed on top (`pattern("packed", causal=True, ...)`); both
    go by distances, so a document sees what it would see alone.

    Attributes:
        lengths: Tokens of each document, in order; any sequence, kept as a tuple.
    """

    lengths: tuple[int, ...]
    _placed_N: Tensor | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.lengths, tuple | list):
            raise UnknownPattern(f"lengths must be a sequence of integers, got {self.lengths!r}.")
        for length in self.lengths:
            require_integer("every length", length, least=1)
        object.__setattr__(self, "lengths", tuple(self.lengths))

    @property
    def key(self) -> str:
        """See `Pattern.key`."""
        return "packed"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """See `Pattern.parameters`."""
        return {"lengths": self.lengths}

    @property
    def title(self) -> str:
        """How many documents: their lengths may be thousands."""
        return f"packed ({len(self.lengths)} document{'s' * (len(self.lengths) != 1)})"

    def bounds(self, positions: int, device: torch.device | None = None) -> Tensor:
        """Where each position's document begins and ends.

        Args:
            positions: How many, from 0 on.
            device: Of the result; the CPU when None.

        Returns:
            int32 `[positions, 2]`: its first position, and one past its last within `positions`.
        """
        ends_D = torch.tensor([*accumulate(self.lengths), positions]).clamp(max=positions)
        starts_D = torch.nn.functional.pad(ends_D[:-1], (1, 0))
        bounds_D2 = torch.stack([starts_D, ends_D], 1).to(torch.int32)
        return bounds_D2.repeat_interleave(ends_D - starts_D, 0).to(device or "cpu")

    def on(self, device: torch.device) -> "Packed":
        """See `Pattern.on`."""
        # Here, for only compilers ask: its import takes as long as PyTorch's own.
        from torch import _dynamo

        placed, starts_N = copy(self), self._starts(device)
        # Of a size that is a power of 2 and a constant, or FlexAttention's C++ does not compile.
        _dynamo.mark_static(starts_N)
        object.__setattr__(placed, "_placed_N", starts_N)
        return placed

    def visible(self, query_index: Tensor, key_index: Tensor) -> Tensor:
        """See `Pattern.visible`."""
        placed_N = self._placed_N
        starts_N = self._starts(query_index.device) if placed_N is None else placed_N
        last = len(starts_N) - 1
        return starts_N[query_index.clamp(0, last)] == starts_N[key_index.clamp(0, last)]

    def key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """See `Pattern.key_spans`; tight."""
        first, _ = self._document(query_start)
        _, last = self._document(query_end - 1)
        return spans([(first, key_length if last is None else last)], key_length)

    def full_key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """See `Pattern.full_key_spans`; tight."""
        one = self._document(query_start) == self._document(query_end - 1)
        return self.key_spans(query_start, query_end, key_length) if one else ()

    def runs(self, query_Q: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """See `SpanPattern.runs`."""
        ends_D = np.array([*accumulate(self.lengths), ENDLESS])
        starts_D = np.concatenate([[0], ends_D[:-1]])
        document_Q = np.searchsorted(ends_D, query_Q, side="right")
        return [(starts_D[document_Q], ends_D[document_Q])]

    def _starts(self, device: torch.device) -> Tensor:
        """Where each position's document begins, past the end of the last one at least."""
        positions = max(1024, 1 << sum(self.lengths).bit_length())
        return self.bounds(positions, device)[:, 0].contiguous()

    def _document(self, position: int) -> tuple[int, int | None]:
        """Where the position's document begins and ends; None is no end."""
        start = 0
        for end in accumulate(self.lengths):
            if position < end:
                return start, end
            start = end
        return start, None
