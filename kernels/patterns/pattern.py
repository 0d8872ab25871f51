"""What every sparsity pattern is: a rule that says which (query, key) pairs are visible.

A pattern knows nothing of tensors' shapes, heads or dtypes: it speaks of absolute token positions. When there are more
keys than queries (a KV cache), the caller adds the offset of the first query before asking.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

EMPTY, PARTIAL, FULL = 0, 1, 2
"""Values of a block mask: no pair of the block is visible, some are, all are."""

Spans = tuple[tuple[int, int], ...]
"""Half-open, sorted, disjoint intervals of key positions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern(ABC):
    """Which (query, key) pairs may attend.

    Subclasses are frozen dataclasses whose fields are the pattern's parameters. They must give `visible`; they
    override the other methods where there is a closed form, and the tests hold the closed form against these.
    """

    @property
    @abstractmethod
    def key(self) -> str:
        """The name of the family, as in `pattern(key, **parameters)` and in links."""

    @property
    def parameters(self) -> Mapping[str, object]:
        """The parameters that make this pattern, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def title(self) -> str:
        """The pattern in a few words, with its parameters, for people."""
        inside = ", ".join(f"{name} {value}" for name, value in self.parameters.items())
        return f"{self.key.replace('_', ' ')} ({inside})" if inside else self.key.replace("_", " ")

    @abstractmethod
    def visible(self, query_index: Tensor, key_index: Tensor) -> Tensor:
        """Whether each query may attend to each key.

        Args:
            query_index: Absolute positions, any integer shape that broadcasts with `key_index`.
            key_index: Absolute positions.

        Returns:
            bool, of the broadcast shape.
        """

    def key_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """The keys that any query of `[query_start, query_end)` may see: what a kernel must visit.

        A superset is allowed (the rule itself is applied inside), a subset never is.
        """
        del query_start, query_end
        return ((0, key_length),)

    def full_spans(self, query_start: int, query_end: int, key_length: int) -> Spans:
        """The keys that every query of `[query_start, query_end)` sees: where no mask is needed.

        A subset is allowed (the rule is applied to the rest), a superset never is.
        """
        del query_start, query_end, key_length
        return ()

    def block_mask(self, query_length: int, key_length: int, block: int) -> np.ndarray:
        """The mask by blocks of `block` × `block` pairs; the last queries align with the last keys.

        Returns:
            uint8 `[ceil(query_length / block), ceil(key_length / block)]` of EMPTY, PARTIAL or FULL.
        """
        offset = key_length - query_length
        rows, columns = -(-query_length // block), -(-key_length // block)
        mask = np.full((rows, columns), EMPTY, np.uint8)
        for row in range(rows):
            start, end = row * block, min((row + 1) * block, query_length)
            seen = self._visible_block(start + offset, end + offset, key_length)
            for column in range(columns):
                cell = seen[:, column * block : (column + 1) * block]
                mask[row, column] = FULL if cell.all() else PARTIAL if cell.any() else EMPTY
        return mask

    def kept_pairs(self, query_length: int, key_length: int) -> int:
        """How many (query, key) pairs are visible; the last queries align with the last keys."""
        offset = key_length - query_length
        step = 256
        return sum(
            int(self._visible_block(start, min(start + step, key_length), key_length).sum())
            for start in range(offset, key_length, step)
        )

    def _visible_block(self, query_start: int, query_end: int, key_length: int) -> Tensor:
        queries, keys = torch.arange(query_start, query_end), torch.arange(key_length)
        return self.visible(queries[:, None], keys[None, :]).expand(len(queries), len(keys))
