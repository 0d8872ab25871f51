"""Muon: momentum whose every update is made orthogonal, for the demo model's hidden matrices.

Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024).
PyTorch's own ``torch.optim.Muon`` rounds to bfloat16, which is slow on a CPU without bfloat16
instructions; here everything stays in float32, and matrices of one shape share one batched
iteration.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

QUINTIC = (3.4445, -4.7750, 2.0315)  # coefficients that bring singular values near 1 in five steps


def orthogonalized(matrices: Tensor, *, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrices, roughly, by a quintic Newton-Schulz iteration.

    Args:
        matrices: ``[N, R, C]``, floating point, with R <= C.
        steps: iterations; five leave all singular values between about 0.7 and 1.2.

    Returns:
        ``[N, R, C]``: U V^T for each matrix U S V^T, approximately.
    """
    a, b, c = QUINTIC
    x = matrices / (torch.linalg.matrix_norm(matrices, keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay, for two-dimensional parameters."""

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim != 2:
                    raise ValueError(
                        f"Muon takes matrices, not a parameter of shape {tuple(parameter.shape)}; "
                        "give it to AdamW"
                    )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of every parameter that has a gradient. ``closure`` is not supported."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[torch.nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    rows, columns = parameter.shape
                    by_shape[min(rows, columns), max(rows, columns)].append(parameter)
            for parameters in by_shape.values():
                self._update(parameters, group)

    def _update(self, parameters: list[torch.nn.Parameter], group: dict) -> None:
        wide = []
        for parameter in parameters:
            state, gradient = self.state[parameter], parameter.grad
            assert gradient is not None
            average = state.setdefault("momentum", torch.zeros_like(gradient))
            average.lerp_(gradient, 1 - group["momentum"])
            ahead = gradient.lerp(average, group["momentum"])
            wide.append(ahead if ahead.shape[0] <= ahead.shape[1] else ahead.mT)
        for parameter, update in zip(parameters, orthogonalized(torch.stack(wide)), strict=True):
            rows, columns = parameter.shape
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            scale = group["lr"] * max(1.0, rows / columns) ** 0.5
            parameter.add_(update if rows <= columns else update.mT, alpha=-scale)
