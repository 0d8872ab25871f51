"""One attention call with its tensors, for the tests and, where there is no pytest, the GPU benchmark.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from attnscope.kernels.call import AttentionCall


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """One call and its tensors."""

    call: AttentionCall
    q_BHQD: Tensor
    k_BGKD: Tensor
    v_BGKD: Tensor
    sinks_H: Tensor | None
    visible_keys_BK: Tensor | None
    distance_bias_HR: Tensor | None = None

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v."""
        return self.q_BHQD, self.k_BGKD, self.v_BGKD

    @property
    def extras(self) -> dict[str, Any]:
        """The keyword arguments every kernel takes, and the bias by distance where there is one."""
        extras = {"sinks_H": self.sinks_H, "visible_keys_BK": self.visible_keys_BK}
        bias_HR = self.distance_bias_HR
        return extras if bias_HR is None else extras | {"distance_bias_HR": bias_HR}
