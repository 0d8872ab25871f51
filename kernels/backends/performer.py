"""Performer's estimate of softmax attention (FAVOR+), as a backend.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim, F features.
"""

from functools import partial

import torch
from torch import Tensor

from attnscope.kernels.approximate.feature_maps import (
    LogFeatures,
    log_positive_random,
    orthogonal_projection,
    stable_features,
)
from attnscope.kernels.backends.backend import Refusal, is_causal
from attnscope.kernels.backends.feature_mapped import FeatureMapped
from attnscope.kernels.call import AttentionCall
from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.scores import accumulation_dtype


class Performer(FeatureMapped):
    """Positive orthogonal random features whose products are on average exp(scale · q·k).

    The error of a weight falls with the root of the number of features, and grows exponentially
    with ‖q + k‖²: peaky heads are estimated badly. Every head and layer has the same features.

    Args:
        features: Random features of a head, F.
        seed: Of the random features.

    Raises:
        InvalidCall: Fewer features than one.
    """

    name = "performer"
    title = "Performer (FAVOR+ random features)"
    source = "https://arxiv.org/abs/2009.14794"
    _held_on_a_gpu = (
        FeatureMapped._held_on_a_gpu + ", and all features, B·(H·n_q + G·n_k)·F in both"
    )

    def __init__(self, *, features: int = 256, seed: int = 0) -> None:
        if features < 1:
            raise InvalidCall(f"features must be at least 1, got {features}.")
        self.features = features
        self.seed = seed

    def refuses(self, call: AttentionCall, device: torch.device) -> Refusal | None:
        """See `Backend.refuses`."""
        if call.scale <= 0:
            return Refusal(
                reason=f"its features hold the root of the scale, and the call's is {call.scale:g}",
                remedy="Use tiled.",
            )
        return super().refuses(call, device)

    def _features(self, head_dim: int) -> int:
        del head_dim
        return self.features

    def _feature_flops(self, call: AttentionCall) -> int:
        vectors = call.query_heads * call.query_length + call.kv_heads * call.key_length
        return 2 * call.batch * vectors * self.features * call.head_dim

    def _log_features(self, call: AttentionCall, like: Tensor) -> LogFeatures:
        projection_FD = orthogonal_projection(self.features, call.head_dim, self.seed)
        projection_FD = projection_FD.to(like.device, accumulation_dtype(like.dtype))
        return partial(log_positive_random, projection_FD=projection_FD, scale=call.scale)

    def _compiled(
        self,
        q_BHQD: Tensor,
        k_BGKD: Tensor,
        v_BGKD: Tensor,
        call: AttentionCall,
        visible_keys_BK: Tensor | None,
    ) -> Tensor:
        # Here and not above, so that everything else works where Triton is not installed.
        from attnscope.kernels.triton.linear import linear

        log_features = self._log_features(call, q_BHQD)
        q_BHQF, k_BGKF = stable_features(q_BHQD, k_BGKD, log_features, visible_keys_BK)
        return linear(
            q_BHQF,
            k_BGKF,
            v_BGKD,
            elu=False,
            causal=is_causal(call),
            query_offset=call.query_offset,
            visible_keys_BK=visible_keys_BK,
        )
