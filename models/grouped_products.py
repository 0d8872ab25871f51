"""Grouped matrix products, which are a mixture's experts in one operation, for tensors without numbers.

PyTorch's kernels take float32 and float16 as they take bfloat16; its rule for tensors that have a shape and
no numbers refuses all but bfloat16 (torch 2.13, `_meta_registrations.py`).

S rows of all groups, E groups.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class GroupedProducts(TorchDispatchMode):
    """Gives a grouped product of any dtype its output, and computes nothing."""

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        """Runs every other operation, and those in bfloat16."""
        del types
        if func is torch.ops.aten._grouped_mm.default and args[0].dtype != torch.bfloat16:
            return _product(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _product(left: Tensor, right: Tensor, offsets_E: Tensor | None = None) -> Tensor:
    """`[S, K] @ [E, K, N]` is `[S, N]`, `[K, S] @ [S, N]` is `[E, K, N]`, and so on."""
    groups: tuple[int, ...] = ()
    if left.ndim == right.ndim:
        groups = left.shape[:-2] if offsets_E is None else offsets_E.shape
    return left.new_empty(*groups, left.shape[-2], right.shape[-1])
