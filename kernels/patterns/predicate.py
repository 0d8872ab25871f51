"""Any rule at all, as a function."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.patterns.pattern import Pattern


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicate(Pattern):
    """A vectorised rule with no closed form: a model's own mask function, or a user's.

    Two predicates are equal only when they hold the very same function.

    Attributes:
        function: `(query_index, key_index) -> bool` on integer tensors that broadcast.
        label: The rule in a few words, for people.
    """

    function: Callable[[Tensor, Tensor], Tensor] = field(repr=False)
    label: str

    @property
    def key(self) -> str:
        """See `Pattern.key`."""
        return "custom"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The label; a function has no form that fits a link."""
        return {"label": self.label}

    @property
    def title(self) -> str:
        """The label."""
        return self.label

    def visible(self, query_index: Tensor, key_index: Tensor) -> Tensor:
        """See `Pattern.visible`.

        Raises:
            InvalidCall: The function gave something other than booleans.
        """
        seen = torch.as_tensor(self.function(query_index, key_index), device=query_index.device)
        if seen.dtype != torch.bool:
            raise InvalidCall(f"the rule {self.label!r} must give booleans, got {seen.dtype}.")
        return seen.expand(torch.broadcast_shapes(query_index.shape, key_index.shape))
