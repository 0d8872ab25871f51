import math

import pytest
import torch

from attnscope.kernels.call import AttentionCall
from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.reference import reference

TOKENS = 5


def by_hand(q, k, v, *, scale, softcap, sees, sink, bias):
    """One head in plain Python: three loops and no tensor operation."""
    out, lses = [], []
    for i in range(len(q)):
        terms = {}
        for j in range(len(k)):
            score = sum(a * b for a, b in zip(q[i], k[j], strict=True)) * scale
            if softcap is not None:
                score = softcap * math.tanh(score / softcap)
            score += bias(i, j)
            if sees(i, j):
                terms[j] = math.exp(score)
        total = sum(terms.values()) + (0.0 if sink is None else math.exp(sink))
        lses.append(math.log(total) if total else -math.inf)
        row = [0.0] * len(v[0])
        for j, term in terms.items():
            for d in range(len(row)):
                row[d] += term / total * v[j][d]
        out.append(row)
    return torch.tensor(out, dtype=torch.float64), torch.tensor(lses, dtype=torch.float64)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("sink", [None, 0.7])
@pytest.mark.parametrize("hidden", [None, 0, 4])
@pytest.mark.parametrize(
    ("chosen", "rule"),
    [
        (pattern("full"), lambda i, j: True),
        (pattern("causal"), lambda i, j: j <= i),
        (pattern("sliding_window", window=2), lambda i, j: i - 2 < j <= i),
    ],
    ids=["full", "causal", "window 2"],
)
def test_equals_three_loops(chosen, rule, hidden, sink, softcap) -> None:
    torch.manual_seed(0)
    heads = 2
    q_BHQD = torch.randn(1, heads, TOKENS, 3)
    k_BGKD, v_BGKD = torch.randn(1, 1, TOKENS, 3), torch.randn(1, 1, TOKENS, 2)
    sinks_H = None if sink is None else torch.full((heads,), sink, dtype=torch.float64)
    visible_BK = None if hidden is None else torch.arange(TOKENS)[None] != hidden
    call = AttentionCall.of(
        q_BHQD,
        k_BGKD,
        v_BGKD,
        pattern=chosen,
        softcap=softcap,
        has_sinks=sink is not None,
        has_padding=hidden is not None,
    )
    found = reference(q_BHQD, k_BGKD, v_BGKD, call, sinks_H=sinks_H, visible_keys_BK=visible_BK)
    for head in range(heads):
        out, lse = by_hand(
            q_BHQD[0, head].tolist(),
            k_BGKD[0, 0].tolist(),
            v_BGKD[0, 0].tolist(),
            scale=call.scale,
            softcap=softcap,
            sees=lambda i, j: rule(i, j) and j != hidden,
            sink=sink,
            bias=lambda i, j: 0.0,
        )
        torch.testing.assert_close(found.out_BHQD[0, head], out, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found.lse_BHQ[0, head], lse, rtol=1e-12, atol=1e-12)
    sink_share = 0.0 if sinks_H is None else (sinks_H[:, None] - found.lse_BHQ).exp()
    sees_some = (~found.lse_BHQ.isinf()).double()
    total_BHQ = found.weights_BHQK.sum(-1)
    torch.testing.assert_close(total_BHQ, sees_some * (1.0 - sink_share))


@pytest.mark.parametrize(("queries", "offset"), [(TOKENS, 0), (3, 2), (3, 0)])
def test_a_bias_by_distance_equals_three_loops(queries, offset) -> None:
    """The distance counts from the first query's own index, wherever the call puts it."""
    torch.manual_seed(0)
    q, k = torch.randn(1, 2, queries, 3), torch.randn(1, 1, TOKENS, 3)
    bias_HR = torch.randn(2, queries + TOKENS - 1)
    call = AttentionCall.of(
        q, k, k, pattern=pattern("causal"), query_offset=offset, softcap=2.0, has_distance_bias=True
    )
    found = reference(q, k, k, call, distance_bias_HR=bias_HR)
    for head in range(2):
        out, lse = by_hand(
            q[0, head].tolist(),
            k[0, 0].tolist(),
            k[0, 0].tolist(),
            scale=call.scale,
            softcap=2.0,
            sees=lambda i, j: j <= i + offset,
            sink=None,
            bias=lambda i, j, head=head: bias_HR[head, j - i + queries - 1].item(),
        )
        torch.testing.assert_close(found.out_BHQD[0, head], out, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found.lse_BHQ[0, head], lse, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("extras", "said"),
    [
        ({"distance_bias_HR": torch.zeros(2, 9)}, "has_distance_bias is False"),
        ({"sinks_H": torch.zeros(2)}, "has_sinks is False"),
        ({"visible_keys_BK": torch.ones(1, 5, dtype=torch.bool)}, "has_padding is False"),
    ],
)
def test_refuses_what_the_call_does_not_say(extras, said) -> None:
    q, k = torch.randn(1, 2, TOKENS, 3), torch.randn(1, 1, TOKENS, 3)
    with pytest.raises(InvalidCall, match=said):
        reference(q, k, k, AttentionCall.of(q, k, k), **extras)
