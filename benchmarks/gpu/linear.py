"""Linear attention at growing lengths: right first, then beside exact attention and beside its peer.

Exact attention (PyTorch's kernels, causal) is another function: what is compared with it is what the
approximation saves. The peer that computes the same function, flash-linear-attention's chunked
kernel, takes part where that wheel is installed; its features are made outside what is timed, ours
inside. Each is judged by its own definition in float64, and the work of each is its own.

B batch, H query heads, Q queries, K keys, D head dim, R queries of a block.
"""

import importlib.util
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from attnscope.kernels.backends.linear import Linear
from attnscope.kernels.call import AttentionCall, AttentionOutput
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.triton.device import missing
from benchmarks.gpu.bench import Bench, Record, contest, planned
from benchmarks.gpu.contenders import Contender, contender, judged, takers
from benchmarks.gpu.problem import SCORES_AT_A_TIME, Verdict, poison, problem, truth
from benchmarks.results import failure
from tests.approximations import elu_plus_one
from tests.inputs import Inputs
from tests.tolerance import assert_as_good_as

OURS, PEER = "triton_linear", "fla_chunk_linear"
LINEAR = (OURS, PEER)
"""Who computes linear attention, by the names in the records."""

EXACT = ("sdpa_efficient", "sdpa_flash", "sdpa_cudnn", "fa2", "fa3", "fa4")
"""Kernels of PyTorch's and of the FlashAttention packages, which hold no matrix of weights."""


def calls(*, toy: bool) -> tuple[AttentionCall, ...]:
    """The plan: causal, 64k, 16k and 4k tokens of 8 heads, head_dim 128 and 64; the longest first.

    Args:
        toy: Tiny, and in float16, which Triton's interpreter can multiply.
    """
    return tuple(
        AttentionCall(
            batch=1,
            query_heads=2 if toy else 8,
            kv_heads=2 if toy else 8,
            query_length=length,
            key_length=length,
            head_dim=head_dim,
            value_dim=head_dim,
            dtype="float16" if toy else "bfloat16",
            scale=head_dim**-0.5,
            pattern=pattern("causal"),
        )
        for length in ((48, 24) if toy else (65_536, 16_384, 4096))
        for head_dim in ((16,) if toy else (128, 64))
    )


def linear(bench: Bench) -> Iterator[Record]:
    """Every call of the plan, judged and timed."""
    return planned(bench, calls(toy=bench.toy), partial(_one, bench))


def _one(bench: Bench, call: AttentionCall, deadline: float) -> Record:
    asked = problem(call, bench.device)
    among = [each for each in bench.backends if each.name in EXACT]
    taken, refused = takers(call, bench.device, among)
    contenders = [contender(each, asked) for each in taken]
    lacks = {OURS: missing(bench.device), PEER: _peer_missing(bench)}
    for name, make in ((PEER, _peer), (OURS, _ours)):
        if lacks[name] is None:
            contenders.insert(0, Contender(name=name, run=make(asked)))
        else:
            refused[name] = f"not run: {lacks[name]}"
    judge = _Judge(asked, exact=bool(taken))
    found = contest(bench, call, contenders, judge, deadline=deadline)
    for name in LINEAR:
        if "ms" in found["backends"].get(name, ()):
            found["backends"][name] |= _own_rates(bench, call, found["backends"][name])
    return {"refused": refused, **found}


def _ours(asked: Inputs) -> Callable[[], AttentionOutput]:
    def run() -> AttentionOutput:
        # Here and not above: without Triton the rest of the section still runs.
        from attnscope.kernels.triton.linear_forward import linear_forward

        out_BHQD = linear_forward(*asked.tensors, elu=True, causal=True)
        return AttentionOutput(out_BHQD=out_BHQD, lse_BHQ=None)

    return run


def _peer(asked: Inputs) -> Callable[[], AttentionOutput]:
    """flash-linear-attention's kernel, whose tensors lie `[B, Q, H, D]`."""
    q, k = (elu_plus_one(each).transpose(1, 2).contiguous() for each in asked.tensors[:2])
    v = asked.v_BGKD.transpose(1, 2).contiguous()

    def run() -> AttentionOutput:
        from fla.ops.linear_attn import chunk_linear_attn  # pyright: ignore[reportMissingImports]

        out, _ = chunk_linear_attn(q, k, v, scale=1.0, normalize=True)
        return AttentionOutput(out_BHQD=out.transpose(1, 2), lse_BHQ=None)

    return run


def _peer_missing(bench: Bench) -> str | None:
    if bench.toy:
        return "a toy run has no GPU for flash-linear-attention"
    if importlib.util.find_spec("fla") is None:
        return "flash-linear-attention is not installed (pip install flash-linear-attention)"
    return None


class _Judge:
    """Each by its own truth; that of exact attention is made only if somebody computes it."""

    def __init__(self, asked: Inputs, *, exact: bool) -> None:
        self.asked = asked
        self.true_BHQD, self.theirs_BHQD = definition(asked)
        self.exact = truth(asked) if exact else None

    def __call__(self, candidate: Contender) -> Verdict | str:
        if candidate.name not in LINEAR:
            assert self.exact is not None, "there is somebody to judge"
            return judged(candidate, self.asked, self.exact)
        poison(self.asked)
        try:
            out_BHQD = candidate.run().out_BHQD
        except Exception as error:  # noqa: BLE001 - whatever kept it from answering is its result
            return failure(error)
        return self._verdict(out_BHQD)

    def _verdict(self, out_BHQD: Tensor) -> Verdict:
        reason = None
        try:
            assert_as_good_as(out_BHQD, self.true_BHQD, self.theirs_BHQD)
        except AssertionError as wrong:
            reason = str(wrong)
        error_BHQD = out_BHQD.double() - self.true_BHQD
        error = error_BHQD.abs().max().item()
        theirs = (self.theirs_BHQD.double() - self.true_BHQD).abs().max().item()
        return Verdict(
            right=reason is None,
            reason=reason,
            error=error,
            relative=(error_BHQD.norm() / self.true_BHQD.norm()).item(),
            ratio=error / theirs if theirs else float(error > 0),
            lse_error=None,
        )


def definition(asked: Inputs) -> tuple[Tensor, Tensor]:
    """Causal linear attention pair by pair, in float64 and in the call's dtype, in blocks of queries."""
    call = asked.call
    step = max(SCORES_AT_A_TIME // (call.query_heads * call.key_length), 1)
    blocks = [
        tuple(_block(asked, start, start + step, dtype) for dtype in (torch.float64, None))
        for start in range(0, call.query_length, step)
    ]
    true_BHQD, theirs_BHQD = (torch.cat(each, 2) for each in zip(*blocks, strict=True))
    return true_BHQD, theirs_BHQD


def _block(asked: Inputs, start: int, end: int, dtype: torch.dtype | None) -> Tensor:
    q_BHRD, k_BHKD, v_BHKD = (
        each[:, :, first:end].to(dtype or each.dtype)
        for each, first in zip(asked.tensors, (start, 0, 0), strict=True)
    )
    weights_BHRK = (elu_plus_one(q_BHRD) @ elu_plus_one(k_BHKD).mT).tril_(start)
    return weights_BHRK @ v_BHKD / weights_BHRK.sum(-1, keepdim=True)


def _own_rates(bench: Bench, call: AttentionCall, found: Record) -> Record:
    """The rates of linear attention's own work, which is not that of exact attention."""
    flops = Linear().cost(call).flops / (found["ms"]["median"] * 1e-3)
    return {"tflops": flops / 1e12, "of_matmul": flops / bench.ceilings.matmul_flops}
