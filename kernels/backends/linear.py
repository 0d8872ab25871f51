"""Linear attention with elu + 1 features, as a backend."""

from torch import Tensor

from attnscope.kernels.approximate.feature_maps import LogFeatures, log_elu_plus_one
from attnscope.kernels.backends.backend import is_causal
from attnscope.kernels.backends.feature_mapped import FeatureMapped
from attnscope.kernels.call import AttentionCall


class Linear(FeatureMapped):
    """Weights (elu(q) + 1)·(elu(k) + 1): no softmax, and no estimate of one either.

    A model must be trained with it to be good with it; one trained with softmax is not. The call's
    scale does not enter: the paper has none.
    """

    name = "linear"
    title = "Linear attention (elu + 1)"
    source = "https://arxiv.org/abs/2006.16236"

    def _features(self, head_dim: int) -> int:
        return head_dim

    def _log_features(self, call: AttentionCall, like: Tensor) -> LogFeatures:
        del call, like
        return log_elu_plus_one

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

        return linear(
            q_BHQD,
            k_BGKD,
            v_BGKD,
            elu=True,
            causal=is_causal(call),
            query_offset=call.query_offset,
            visible_keys_BK=visible_keys_BK,
        )
