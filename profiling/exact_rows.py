"""Rows of one layer's attention beside what they should be: in float64, and as PyTorch rounds them.

Each sequence is taken alone and in blocks of its queries, so that no more weights are held than those of
a block.

B batch, H query heads, G kv heads, Q queries of a block, K keys, D head dim.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from attnscope.kernels import distance_bias, registry
from attnscope.kernels.call import AttentionCall
from attnscope.kernels.reference import Reference, reference
from attnscope.kernels.scores import visible
from attnscope.models.swapping import LayerCall

SCORES = 2**22
"""Scores of a layer that are judged at a time: a few times 32 MiB in float64."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """Some queries of one sequence of a layer, with the answer that a backend gave them.

    Attributes:
        first: Index of the first query in its sequence.
        q_BHQD: The queries, B = 1.
        k_BGKD: Every key of the sequence.
        v_BGKD: Their values.
        out_BHQD: What the backend answered.
        call: The attention call that these rows alone make.
        sinks_H: A sink logit a head, or None.
        visible_keys_BK: False where a key is padding, or None.
        distance_bias_HR: Of these rows, see `kernels/distance_bias.py`, or None.
        dense: Whether the backend rounds scores to the call's dtype, as dense attention does.
    """

    first: int
    q_BHQD: Tensor
    k_BGKD: Tensor
    v_BGKD: Tensor
    out_BHQD: Tensor
    call: AttentionCall
    sinks_H: Tensor | None
    visible_keys_BK: Tensor | None
    distance_bias_HR: Tensor | None
    dense: bool

    def exact(self) -> Reference:
        """Dense attention in float64; see `kernels.reference`."""
        return reference(
            self.q_BHQD,
            self.k_BGKD,
            self.v_BGKD,
            self.call,
            sinks_H=self.sinks_H,
            visible_keys_BK=self.visible_keys_BK,
            distance_bias_HR=self.distance_bias_HR,
        )

    def seen(self) -> Tensor:
        """Which pairs are visible: bool `[1, Q, K]`, or `[Q, K]` where nothing is padded."""
        queries = range(self.call.query_offset, self.call.query_offset + self.call.query_length)
        return visible(
            self.call.pattern,
            queries,
            range(self.call.key_length),
            self.visible_keys_BK,
            device=self.q_BHQD.device,
        )

    def pytorchs(self) -> Tensor:
        """PyTorch's attention in the dtype of its inputs; a sink is one more key, of value 0."""
        call, q_BHQD = self.call, self.q_BHQD
        k_BHKD, v_BHKD = (
            each.repeat_interleave(call.group_size, 1) for each in (self.k_BGKD, self.v_BGKD)
        )
        seen_QK = self.seen().reshape(call.query_length, call.key_length)
        shape = (1, call.query_heads, *seen_QK.shape)
        bias_BHQK = torch.zeros(shape, dtype=q_BHQD.dtype, device=q_BHQD.device)
        if self.distance_bias_HR is not None:
            bias_BHQK += distance_bias.of_call(self.distance_bias_HR, *seen_QK.shape)
        bias_BHQK.masked_fill_(~seen_QK, -torch.inf)
        if self.sinks_H is not None:
            column = self.sinks_H.to(bias_BHQK.dtype)[:, None, None]
            bias_BHQK = torch.cat([bias_BHQK, column.expand(*bias_BHQK.shape[:3], 1)], -1)
            k_BHKD, v_BHKD = (pad(each, (0, 0, 0, 1)) for each in (k_BHKD, v_BHKD))
        if self.dense or call.softcap is not None:
            out_BHQD = _dense(q_BHQD, k_BHKD, v_BHKD, bias_BHQK, call)
        else:
            out_BHQD = scaled_dot_product_attention(
                q_BHQD, k_BHKD, v_BHKD, attn_mask=bias_BHQK, scale=call.scale
            )
        # A row that sees nothing is 0, and to PyTorch not a number.
        return out_BHQD.masked_fill(~seen_QK.any(-1)[:, None], 0.0)


def rows_of(call: LayerCall, sequence: int, queries: range) -> Rows:
    """Some queries of one sequence.

    Args:
        call: The layer's, as the backend saw and answered it.
        sequence: Which of the batch.
        queries: Indices of the queries, of step 1.
    """
    one, some = slice(sequence, sequence + 1), slice(queries.start, queries.stop)
    seen_BK = call.mask.visible_keys_BK
    padding_BK = None if seen_BK is None else seen_BK[one]
    tensors = call.q_BHQD[one, :, some], call.k_BGKD[one], call.v_BGKD[one]
    asked = AttentionCall.of(
        *tensors,
        pattern=call.mask.pattern_of(sequence),
        scale=call.scale,
        query_offset=call.mask.query_offset + queries.start,
        softcap=call.softcap,
        has_sinks=call.sinks_H is not None,
        has_padding=padding_BK is not None,
        has_distance_bias=call.distance_bias_HR is not None,
    )
    bias_HR = call.distance_bias_HR
    if bias_HR is not None:
        every, length = range(asked.key_length), call.q_BHQD.shape[2]
        bias_HR = distance_bias.of_part(bias_HR, queries, every, query_length=length)
    q_BHQD, k_BGKD, v_BGKD = tensors
    return Rows(
        first=queries.start,
        q_BHQD=q_BHQD,
        k_BGKD=k_BGKD,
        v_BGKD=v_BGKD,
        out_BHQD=call.out_BHQD[one, :, some],
        call=asked,
        sinks_H=call.sinks_H,
        visible_keys_BK=padding_BK,
        distance_bias_HR=bias_HR,
        dense=registry.backend(call.backend).rounds_scores,
    )


def blocks(call: LayerCall, sequence: int, queries: range) -> Iterator[Rows]:
    """The queries in blocks of at most `SCORES` scores, in order; see `rows_of`."""
    step = most_rows(call)
    for start in range(queries.start, queries.stop, step):
        yield rows_of(call, sequence, range(start, min(start + step, queries.stop)))


def most_rows(call: LayerCall) -> int:
    """Queries of a layer that make at most `SCORES` scores; at least 1."""
    return max(1, SCORES // (call.q_BHQD.shape[1] * call.k_BGKD.shape[2]))


def _dense(
    q_BHQD: Tensor, k_BHKD: Tensor, v_BHKD: Tensor, bias_BHQK: Tensor, call: AttentionCall
) -> Tensor:
    scores_BHQK = (q_BHQD * call.scale) @ k_BHKD.mT
    if call.softcap is not None:
        scores_BHQK = call.softcap * torch.tanh(scores_BHQK / call.softcap)
    weights_BHQK = torch.softmax((scores_BHQK + bias_BHQK).float(), -1)
    return weights_BHQK.to(q_BHQD.dtype) @ v_BHKD
