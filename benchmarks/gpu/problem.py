"""One attention call with tensors in it, and whether an answer to it is right.

The truth is dense attention in float64 over every row, a block of queries at a time, and the rule
is the one that the tests of every kernel keep (tests/tolerance.py): no more than twice the error
that PyTorch's own attention makes on the same tensors.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim, R distances.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from attnscope.kernels import distance_bias
from attnscope.kernels.call import AttentionCall, AttentionOutput
from attnscope.kernels.reference import reference
from tests.inputs import Inputs
from tests.tolerance import assert_as_good_as, pytorch_attention

SCORES_AT_A_TIME = 2**26
"""Scores of a block of the truth: half a GiB in float64, a few times over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What the answer should be, and what PyTorch makes of it in the call's dtype.

    Attributes:
        out_BHQD: float64.
        lse_BHQ: float64.
        theirs_BHQD: By PyTorch's fused attention.
        dense_BHQD: By matmul, softmax, matmul, with the scores rounded to the dtype.
        dense_lse_BHQ: Of those scores.
    """

    out_BHQD: Tensor
    lse_BHQ: Tensor
    theirs_BHQD: Tensor
    dense_BHQD: Tensor
    dense_lse_BHQ: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether an answer is right, and by how much it errs.

    Attributes:
        right: By the one rule.
        reason: What is wrong; None when nothing is.
        error: Largest absolute error of the output.
        relative: ‖out − truth‖ / ‖truth‖.
        ratio: `error` over that of PyTorch's fused attention on the same tensors.
        lse_error: Largest absolute error of the log-sum-exp; None where the answer has none.
    """

    right: bool
    reason: str | None
    error: float
    relative: float
    ratio: float
    lse_error: float | None


def problem(call: AttentionCall, device: torch.device, *, seed: int = 0) -> Inputs:
    """Random tensors for the call: normal, q twice as wide, so that a wrong pair is seen.

    Sequence b of a padded call has 5·(b + 1) keys of padding on the left, at most half of them.
    """
    generator = torch.Generator(device).manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device, dtype=call.torch_dtype)

    distances = distance_bias.columns(call.query_length, call.key_length)
    kept_BK = None
    if call.has_padding:
        position_K = torch.arange(call.key_length, device=device)
        hidden_B1 = 5 * torch.arange(1, call.batch + 1, device=device)[:, None]
        kept_BK = position_K >= hidden_B1.clamp(max=call.key_length // 2)
    return Inputs(
        call=call,
        q_BHQD=normal(call.batch, call.query_heads, call.query_length, call.head_dim) * 2,
        k_BGKD=normal(call.batch, call.kv_heads, call.key_length, call.head_dim),
        v_BGKD=normal(call.batch, call.kv_heads, call.key_length, call.value_dim),
        sinks_H=normal(call.query_heads).float() if call.has_sinks else None,
        visible_keys_BK=kept_BK,
        distance_bias_HR=normal(call.query_heads, distances).float() * 2
        if call.has_distance_bias
        else None,
    )


def truth(asked: Inputs) -> Truth:
    """What the answer should be: every row, in float64, on the tensors' device."""
    sequences = [_truth(each) for each in _sequences(asked)]
    return Truth(
        **{
            each.name: torch.cat([getattr(sequence, each.name) for sequence in sequences])
            for each in fields(Truth)
        }
    )


def _truth(asked: Inputs) -> Truth:
    """The truth of one sequence, a block of queries at a time."""
    blocks: list[tuple[Tensor, ...]] = []
    for part in _blocks(asked):
        tensors, call, extras = part.tensors, part.call, part.extras
        answer = reference(*tensors, call, **extras)
        exact = (answer.out_BHQD, answer.lse_BHQ)
        # Its weights are what takes the memory.
        del answer
        theirs, _ = pytorch_attention(*tensors, call, **extras)
        dense, dense_lse = pytorch_attention(*tensors, call, **extras, dense=True)
        blocks.append((*exact, theirs, dense, dense_lse))
    out, lse, theirs, dense, dense_lse = (torch.cat(each, 2) for each in zip(*blocks, strict=True))
    return Truth(
        out_BHQD=out, lse_BHQ=lse, theirs_BHQD=theirs, dense_BHQD=dense, dense_lse_BHQ=dense_lse
    )


def verdict(answer: AttentionOutput, true: Truth, *, rounds_scores: bool = False) -> Verdict:
    """Whether the answer is right.

    Args:
        answer: Of a backend.
        true: Of the same problem.
        rounds_scores: Whether the backend rounds its scores to the dtype, as `eager` does: it is
            held to PyTorch doing so.
    """
    reason = None
    theirs = true.dense_BHQD if rounds_scores else true.theirs_BHQD
    try:
        assert_as_good_as(answer.out_BHQD, true.out_BHQD, theirs)
        if answer.lse_BHQ is not None:
            assert_as_good_as(answer.lse_BHQ, true.lse_BHQ, true.dense_lse_BHQ)
    except AssertionError as wrong:
        reason = str(wrong)
    error_BHQD = answer.out_BHQD.double() - true.out_BHQD
    error = error_BHQD.abs().max().item()
    fused = (true.theirs_BHQD.double() - true.out_BHQD).abs().max().item()
    return Verdict(
        right=reason is None,
        reason=reason,
        error=error,
        relative=(error_BHQD.norm() / true.out_BHQD.norm()).item(),
        ratio=error / fused if fused else float(error > 0),
        lse_error=None if answer.lse_BHQ is None else _largest(answer.lse_BHQ, true.lse_BHQ),
    )


def poison(asked: Inputs) -> None:
    """Leaves NaN in the memory that the next answer is likely to be given.

    The allocator hands a block that was just freed to the next who asks for that size.
    """
    call, device = asked.call, asked.q_BHQD.device
    rows = (call.batch, call.query_heads, call.query_length)
    out_BHQD = torch.full((*rows, call.value_dim), torch.nan, dtype=call.torch_dtype, device=device)
    lse_BHQ = torch.full(rows, torch.nan, device=device)
    # Both at once, or the second would be given the memory of the first.
    del out_BHQD, lse_BHQ


def _sequences(asked: Inputs) -> Iterator[Inputs]:
    """The problem of each sequence: k and v are widened and repeated for one at a time."""
    for at in range(asked.call.batch):
        one = slice(at, at + 1)
        kept_BK = asked.visible_keys_BK
        yield Inputs(
            call=replace(asked.call, batch=1),
            q_BHQD=asked.q_BHQD[one],
            k_BGKD=asked.k_BGKD[one],
            v_BGKD=asked.v_BGKD[one],
            sinks_H=asked.sinks_H,
            visible_keys_BK=None if kept_BK is None else kept_BK[one],
            distance_bias_HR=asked.distance_bias_HR,
        )


def _blocks(asked: Inputs) -> Iterator[Inputs]:
    """The queries in blocks, each as the problem that it is alone."""
    call, bias_HR = asked.call, asked.distance_bias_HR
    step = max(SCORES_AT_A_TIME // (call.batch * call.query_heads * call.key_length), 1)
    for start in range(0, call.query_length, step):
        part = asked.q_BHQD[:, :, start : start + step]
        length = part.shape[2]
        yield replace(
            asked,
            call=replace(call, query_length=length, query_offset=call.query_offset + start),
            q_BHQD=part,
            distance_bias_HR=None
            if bias_HR is None
            else distance_bias.of_part(
                bias_HR,
                range(start, start + length),
                range(call.key_length),
                query_length=call.query_length,
            ),
        )


def _largest(lse_BHQ: Tensor, true_BHQ: Tensor) -> float:
    finite = true_BHQ.isfinite()
    return (lse_BHQ[finite].double() - true_BHQ[finite]).abs().max().item() if finite.any() else 0.0
