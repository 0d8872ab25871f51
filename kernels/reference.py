"""The oracle: dense attention in float64, written to be read.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim (of the values, in outputs).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from attnscope.kernels import distance_bias
from attnscope.kernels.call import AttentionCall
from attnscope.kernels.scores import scores, visible


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What attention really is for one call, all in float64.

    Attributes:
        out_BHQD: `[B, H, Q, value_dim]`; 0 in a row that sees nothing.
        weights_BHQK: `[B, H, Q, K]`; a row totals 1 minus the sink's share, 0 if it sees nothing.
        lse_BHQ: `[B, H, Q]`, natural logarithm of the softmax's denominator, the sink's term
            included; −inf in a row that sees nothing and has no sink.
    """

    out_BHQD: Tensor
    weights_BHQK: Tensor
    lse_BHQ: Tensor


def reference(
    q_BHQD: Tensor,
    k_BGKD: Tensor,
    v_BGKD: Tensor,
    call: AttentionCall,
    *,
    sinks_H: Tensor | None = None,
    visible_keys_BK: Tensor | None = None,
    distance_bias_HR: Tensor | None = None,
) -> Reference:
    """Dense attention (arXiv 1706.03762 §3.2.1) in float64, on the inputs' device.

    It holds every weight, 8·B·H·Q·K bytes and more: an oracle for tests, not a backend.

    Args:
        q_BHQD: `[B, H, Q, D]`, any floating dtype.
        k_BGKD: `[B, G, K, D]`.
        v_BGKD: `[B, G, K, value_dim]`.
        call: What the tensors are and which pairs are visible.
        sinks_H: One logit a head that joins the denominator (gpt-oss); given iff `has_sinks`.
        visible_keys_BK: bool, False where a key is padding; given iff `has_padding`.
        distance_bias_HR: float32 `[H, Q + K − 1]`, see `kernels/distance_bias.py`; given iff
            `has_distance_bias`.

    Raises:
        InvalidCall: The tensors are not those of the call.
    """
    call.check(
        q_BHQD,
        k_BGKD,
        v_BGKD,
        sinks_H=sinks_H,
        visible_keys_BK=visible_keys_BK,
        distance_bias_HR=distance_bias_HR,
    )
    k_BHKD = k_BGKD.double().repeat_interleave(call.group_size, dim=1)
    v_BHKD = v_BGKD.double().repeat_interleave(call.group_size, dim=1)
    queries = range(call.query_offset, call.query_offset + call.query_length)
    seen_BHQK = visible(
        call.pattern,
        queries,
        range(call.key_length),
        None if visible_keys_BK is None else visible_keys_BK[:, None],
        device=q_BHQD.device,
    )
    scores_BHQK = scores(q_BHQD.double(), k_BHKD, scale=call.scale, softcap=call.softcap)
    if distance_bias_HR is not None:
        lengths = call.query_length, call.key_length
        scores_BHQK = scores_BHQK + distance_bias.of_call(distance_bias_HR.double(), *lengths)
    scores_BHQK = scores_BHQK.masked_fill(~seen_BHQK, -torch.inf)
    lse_BHQ = scores_BHQK.logsumexp(dim=-1)
    if sinks_H is not None:
        lse_BHQ = torch.logaddexp(lse_BHQ, sinks_H.double()[:, None])
    weights_BHQK = (scores_BHQK - lse_BHQ[..., None]).exp()
    # A row that sees nothing has lse −inf, and −inf − (−inf) is not a number.
    weights_BHQK = weights_BHQK.masked_fill(~seen_BHQK, 0.0)
    return Reference(out_BHQD=weights_BHQK @ v_BHKD, weights_BHQK=weights_BHQK, lse_BHQ=lse_BHQ)
