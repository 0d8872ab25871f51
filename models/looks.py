"""What one token looked at: the weights of every head's row, and where their mass lies.

H query heads, K positions, P parts.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from attnscope.kernels import distance_bias
from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.streaming import Layer, exponentials
from attnscope.models.layer_capture import LayerCapture

PARTS = ("sink", "prompt", "generated", "previous", "itself")
"""The first token; the others of the prompt; those generated; the token just before; the token itself."""
SOURCE_PARTS = ("marks", "text")
"""Of a cross-attention: the tokenizer's own marks in the source, and what was written (or its patches)."""


def rows(layer: LayerCapture, query: int) -> Tensor:
    """The exact weights of one query in every head of a layer.

    Args:
        layer: Of one sequence.
        query: Its position among those read.

    Returns:
        float32 `[H, K]`: of a token's own text the keys up to its own, of a cross-attention the source's.

    Raises:
        InvalidCall: No such query.
    """
    queries = layer.q_BHQD.shape[2]
    if not 0 <= query < queries:
        raise InvalidCall(f"There is no query {query}: {queries} tokens were read.")
    keys = layer.k_BGKD.shape[2] if layer.attention == "cross" else query + 1
    bias_HR = layer.distance_bias_HR
    if bias_HR is not None:
        parts = range(query, query + 1), range(keys)
        bias_HR = distance_bias.of_part(bias_HR, *parts, query_length=queries)
    alone = Layer(
        q_HQD=layer.q_BHQD[0, :, query : query + 1],
        k_GKD=layer.k_BGKD[0, :, :keys],
        pattern=layer.pattern,
        query_offset=layer.query_offset + query,
        scale=layer.scale,
        softcap=layer.softcap,
        distance_bias_HR=bias_HR,
    )
    seen_K = alone.seen(torch.zeros(1, dtype=torch.long, device=alone.q_HQD.device), range(keys))
    scores_HK = alone.scores(slice(0, 1), slice(0, keys))[:, 0]
    weights_HK = exponentials(scores_HK - layer.lse_BHQ[0, :, query, None])
    return weights_HK.masked_fill(~seen_K, 0.0).float()


def shares(rows_HK: Tensor, prompt: int) -> Tensor:
    """How the mass of a token's rows is spread over `PARTS`; a key counts for the last part that names it.

    Args:
        rows_HK: Of a token's own text: its own key is the last.
        prompt: Tokens of the prompt.

    Returns:
        float32 `[H, P]`; a row sums to 1, less what a learned sink of the model holds.
    """
    keys = rows_HK.shape[1]
    part_K = torch.full((keys,), PARTS.index("generated"), device=rows_HK.device)
    part_K[:prompt] = PARTS.index("prompt")
    part_K[0] = PARTS.index("sink")
    part_K[-2:-1] = PARTS.index("previous")
    part_K[-1] = PARTS.index("itself")
    return rows_HK @ torch.nn.functional.one_hot(part_K, len(PARTS)).to(rows_HK.dtype)


def source_shares(rows_HK: Tensor, marks: Sequence[int]) -> Tensor:
    """How the mass of cross-attention rows is spread over `SOURCE_PARTS`.

    Args:
        rows_HK: Over the places of a source.
        marks: Those that are the tokenizer's own marks.

    Returns:
        float32 `[H, 2]`.
    """
    on_marks_H = rows_HK[:, list(marks)].sum(1)
    return torch.stack([on_marks_H, rows_HK.sum(1) - on_marks_H], 1)
