"""Goal K5: the backward pass beside the best that PyTorch has, and whether its gradients are right.

The work counts as 2.5 forward passes, five products for two (arXiv 2307.08691 §4.1), whatever a
kernel recomputes. The graph is made once; what is timed is `torch.autograd.grad` alone.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from attnscope.kernels.backends.backend import Backend
from attnscope.kernels.call import AttentionCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.reference import reference
from benchmarks.gpu import forward
from benchmarks.gpu.bench import Bench, Record, contest, planned
from benchmarks.gpu.contenders import OURS, Contender, takers
from benchmarks.gpu.problem import Verdict, problem
from benchmarks.results import failure
from tests.inputs import Inputs
from tests.tolerance import assert_as_good_as, pytorch_attention

PASSES = 2.5
BACKENDS = (
    *("sdpa_math", "sdpa_efficient", "sdpa_flash", "sdpa_cudnn"),
    *("fa2", "fa3", "fa4", "triton"),
)
"""Those that have a gradient on a GPU; FlexAttention's compiles apart, and is not among them."""

Gradients = tuple[Tensor, ...]
"""Of q, k and v."""


def calls(*, toy: bool) -> tuple[AttentionCall, ...]:
    """The plan: the forward goal's calls up to 8k tokens, and documents packed into the first.

    Args:
        toy: Tiny, and in float16, which Triton's interpreter can multiply.
    """
    plan = [call for call in forward.calls(toy=toy) if call.query_length <= 8192]
    documents = (3, 20) if toy else (1000, 2500, 500, 3000)
    packed = replace(plan[0], pattern=pattern("packed", lengths=documents, causal=True))
    return (*plan, packed)


def backward(bench: Bench) -> Iterator[Record]:
    """Every call of the plan, its gradients judged and timed."""
    return planned(bench, calls(toy=bench.toy), partial(_one, bench))


def _one(bench: Bench, call: AttentionCall, deadline: float) -> Record:
    asked = problem(call, bench.device)
    dout_BHQD = torch.randn_like(asked.v_BGKD)
    among = [each for each in bench.backends if each.name in BACKENDS]
    taken, refused = takers(call, bench.device, among)
    contenders = [
        Contender(name=each.name, run=_Gradient(each, asked, dout_BHQD)) for each in taken
    ]
    exact, theirs = _truth(asked, dout_BHQD)
    judge = partial(_judged, exact=exact, theirs=theirs)
    found = contest(bench, call, contenders, judge, deadline=deadline, passes=PASSES)
    ours = [each for each in contenders if each.name.startswith(OURS)]
    right = [each for each in ours if found["backends"].get(each.name, {}).get("right")]
    if right:
        found["repeatable"] = all(map(_repeats, right))
    return {"refused": refused, **found}


def _repeats(candidate: Contender) -> bool:
    """Whether the gradients are the same when asked for again, bit for bit."""
    pairs = zip(candidate.run(), candidate.run(), strict=True)
    return all(torch.equal(once, again) for once, again in pairs)


class _Gradient:
    """The backward pass of a backend on a problem; the forward one runs at the first call."""

    def __init__(self, backend: Backend, asked: Inputs, dout_BHQD: Tensor) -> None:
        self.backend, self.asked, self.dout_BHQD = backend, asked, dout_BHQD
        self.inputs = _leaves(asked.tensors)
        self.out_BHQD: Tensor | None = None

    def __call__(self) -> Gradients:
        out_BHQD = self.out_BHQD
        if out_BHQD is None:
            answer = self.backend.run(*self.inputs, self.asked.call, **self.asked.extras)
            out_BHQD = self.out_BHQD = answer.out_BHQD
        return torch.autograd.grad(out_BHQD, self.inputs, self.dout_BHQD, retain_graph=True)


def _leaves(tensors: Iterable[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    q_BHQD, k_BGKD, v_BGKD = (each.detach().requires_grad_() for each in tensors)
    return q_BHQD, k_BGKD, v_BGKD


def _truth(asked: Inputs, dout_BHQD: Tensor) -> tuple[Gradients, Gradients]:
    """The gradients by dense attention, in float64 and in the dtype, one head at a time."""
    exact, theirs = [], []
    call = replace(asked.call, batch=1, query_heads=1, kv_heads=1)
    for sequence in range(asked.call.batch):
        for head in range(asked.call.query_heads):
            at = (slice(sequence, sequence + 1), slice(head, head + 1))
            dout = dout_BHQD[at]
            wide = _leaves(each[at].double() for each in asked.tensors)
            # The reference takes tensors of the call's own dtype, which is then float64.
            out = reference(*wide, replace(call, dtype="float64")).out_BHQD
            exact.append(torch.autograd.grad(out, wide, dout.double()))
            narrow = _leaves(each[at] for each in asked.tensors)
            out, _ = pytorch_attention(*narrow, call)
            theirs.append(torch.autograd.grad(out, narrow, dout))
    return _joined(exact, asked), _joined(theirs, asked)


def _joined(heads: list[Gradients], asked: Inputs) -> Gradients:
    shape = (asked.call.batch, asked.call.query_heads)
    return tuple(
        torch.cat(each).unflatten(0, shape).squeeze(2) for each in zip(*heads, strict=True)
    )


def _judged(candidate: Contender, *, exact: Gradients, theirs: Gradients) -> Verdict | str:
    try:
        found = candidate.run()
    except Exception as error:  # noqa: BLE001 - whatever kept it from answering is its result
        return failure(error)
    pairs = list(zip(found, exact, theirs, strict=True))
    reason = None
    try:
        for compared in pairs:
            assert_as_good_as(*compared)
    except AssertionError as wrong:
        reason = str(wrong)
    return Verdict(
        right=reason is None,
        reason=reason,
        error=max(_largest(mine, true) for mine, true, _ in pairs),
        relative=max(
            ((mine.double() - true).norm() / true.norm()).item() for mine, true, _ in pairs
        ),
        ratio=max(_largest(mine, true) / _largest(other, true) for mine, true, other in pairs),
        lse_error=None,
    )


def _largest(mine: Tensor, true: Tensor) -> float:
    return (mine.double() - true).abs().max().item()
