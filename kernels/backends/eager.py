"""Dense attention as transformers writes it: the whole score matrix, softmax in float32.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim.
"""

import torch
from torch import Tensor

from attnscope.kernels import distance_bias
from attnscope.kernels.backends.backend import (
    Backend,
    Cost,
    Refusal,
    attention_flops,
    distance_bias_bytes,
    io_bytes,
    laid_out_bias_bytes,
    lse_bytes,
    sees_every_key,
)
from attnscope.kernels.call import AttentionCall, AttentionOutput
from attnscope.kernels.scores import accumulation_dtype, visible


class Eager(Backend):
    """Every score of every pair, held at once: n² memory, and every modifier there is.

    As `eager_attention_forward` of transformers, but a row that sees nothing gives 0 where
    transformers spreads its weight evenly over what is hidden.
    """

    name = "eager"
    title = "Eager (dense)"
    source = "https://arxiv.org/abs/1706.03762"
    rounds_scores = True

    def refuses(self, call: AttentionCall, device: torch.device) -> Refusal | None:
        """See `Backend.refuses`."""
        if device.type == "mps" and call.dtype == "float64":
            return Refusal(reason="Apple GPUs have no float64", remedy="Use float32.")
        return None

    def cost(self, call: AttentionCall) -> Cost:
        """See `Backend.cost`."""
        size = call.torch_dtype.itemsize
        pairs = call.query_length * call.key_length
        scores = call.batch * call.query_heads * pairs
        # Scores in the dtype, widened to float32 where they are narrower, and their softmax.
        a_score = 2 * size if size >= 4 else size + 4 + 4
        repeated = 0
        if call.group_size > 1:
            keys = call.batch * call.query_heads * call.key_length
            repeated = keys * (call.head_dim + call.value_dim) * size
        read, written = io_bytes(call)
        # The bias is gone when the softmax starts.
        held = max(scores * a_score, scores * size + laid_out_bias_bytes(call))
        return Cost(
            flops=attention_flops(call, pairs),
            bytes_read=read + distance_bias_bytes(call) + 2 * scores * size,
            bytes_written=written + 2 * scores * size,
            workspace_bytes=held + repeated + lse_bytes(call),
            formula=(
                "FLOP 2·B·H·n_q·n_k·(D + D_v), hidden pairs included; holds every score: "
                "B·H·n_q·n_k·(s + 4 + 4) in 16 bits, ·2s otherwise (or before that a bias by distance "
                "laid out, n_q·n_k·(H·s + 8), beside B·H·n_q·n_k·s), and k and v once for each "
                "query head; reads and writes scores and probabilities, 4·B·H·n_q·n_k·s"
            ),
        )

    def _attend(
        self,
        q_BHQD: Tensor,
        k_BGKD: Tensor,
        v_BGKD: Tensor,
        call: AttentionCall,
        *,
        sinks_H: Tensor | None,
        visible_keys_BK: Tensor | None,
        distance_bias_HR: Tensor | None,
    ) -> AttentionOutput:
        k_BHKD, v_BHKD = (_repeated(t, call.group_size) for t in (k_BGKD, v_BGKD))
        scores_BHQK = _scores(q_BHQD, k_BHKD, call)
        if distance_bias_HR is not None:
            # In the call's dtype, in which models hold their bias.
            bias_HR = distance_bias_HR.to(scores_BHQK.dtype)
            scores_BHQK += distance_bias.of_call(bias_HR, call.query_length, call.key_length)
        if call.has_padding or not sees_every_key(call):
            queries = range(call.query_offset, call.query_offset + call.query_length)
            padding = None if visible_keys_BK is None else visible_keys_BK[:, None]
            seen = visible(
                call.pattern, queries, range(call.key_length), padding, device=q_BHQD.device
            )
            scores_BHQK = scores_BHQK.masked_fill_(~seen, -torch.inf)
        if sinks_H is not None:
            sinks_BHQ1 = sinks_H.to(scores_BHQK.dtype)[:, None, None].expand(
                *scores_BHQK.shape[:3], 1
            )
            scores_BHQK = torch.cat([scores_BHQK, sinks_BHQ1], dim=-1)
        weights_BHQK, lse_BHQ = _softmax(scores_BHQK)
        del scores_BHQK
        out_BHQD = weights_BHQK[..., : call.key_length].to(v_BHKD.dtype) @ v_BHKD
        return AttentionOutput(out_BHQD=out_BHQD, lse_BHQ=lse_BHQ)


def _repeated(t_BGKD: Tensor, group_size: int) -> Tensor:
    return t_BGKD if group_size == 1 else t_BGKD.repeat_interleave(group_size, dim=1)


def _scores(q_BHQD: Tensor, k_BHKD: Tensor, call: AttentionCall) -> Tensor:
    """In the call's own dtype, which is what makes eager eager; `scores` widens."""
    scores_BHQK = torch.matmul(q_BHQD, k_BHKD.mT).mul_(call.scale)
    if call.softcap is None:
        return scores_BHQK
    return scores_BHQK.div_(call.softcap).tanh_().mul_(call.softcap)


def _softmax(scores_BHQK: Tensor) -> tuple[Tensor, Tensor]:
    dtype = accumulation_dtype(scores_BHQK.dtype)
    highest_BHQ = scores_BHQK.amax(dim=-1).to(dtype)
    weights_BHQK = torch.softmax(scores_BHQK, dim=-1, dtype=dtype)
    blind_BHQ = highest_BHQ == -torch.inf
    weights_BHQK.masked_fill_(blind_BHQ[..., None], 0.0)
    # The largest weight is exp(highest − lse): the denominator without a second pass of n² sums.
    lse_BHQ = highest_BHQ - weights_BHQK.amax(dim=-1).log()
    return weights_BHQK, lse_BHQ.masked_fill(blind_BHQ, -torch.inf)
