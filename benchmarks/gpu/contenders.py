"""Who takes part in a comparison: the backends of the registry, and what they are held against."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch._dynamo
from torch.nn.attention.flex_attention import AuxRequest, flex_attention

from attnscope.kernels.backends.backend import Backend, join_sinks
from attnscope.kernels.backends.flex import KERNELS_KEPT, Flex, _block_mask, _score_rule
from attnscope.kernels.call import AttentionCall, AttentionOutput
from attnscope.kernels.registry import BACKENDS
from benchmarks.gpu.problem import Truth, Verdict, poison, verdict
from benchmarks.results import failure
from tests.inputs import Inputs

OURS = "triton"
"""How the names of the backends begin that are compared; all others are their peers."""

UNTIMED = ("eager", "tiled")
"""Made to be exact or to run anywhere: they are judged, and are no peers in speed."""

Run = Callable[[], Any]
"""Gives an `AttentionOutput`, or in the backward pass the gradients of q, k and v."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One way to answer a problem.

    Attributes:
        name: The backend's.
        run: Answers the problem.
    """

    name: str
    run: Run


def takers(
    call: AttentionCall, device: torch.device, among: Iterable[Backend] = BACKENDS
) -> tuple[list[Backend], dict[str, str]]:
    """The backends that take the call on the device, and why the others do not."""
    taken, refused = [], {}
    for backend in among:
        refusal = backend.refuses(call, device)
        if refusal is None:
            taken.append(backend)
        else:
            refused[backend.name] = refusal.reason
    return taken, refused


def contender(backend: Backend, asked: Inputs) -> Contender:
    """The backend on this problem; FlexAttention as its users run it, compiled for these sizes."""
    if isinstance(backend, Flex):
        return Contender(name=backend.name, run=_flex(asked))
    run = partial(backend.run, *asked.tensors, asked.call, **asked.extras)
    return Contender(name=backend.name, run=run)


def judged(candidate: Contender, asked: Inputs, true: Truth) -> Verdict | str:
    """The verdict on a contender's answer, or in words why there is none."""
    poison(asked)
    try:
        answer = candidate.run()
        rounds = any(each.name == candidate.name and each.rounds_scores for each in BACKENDS)
        return verdict(answer, true, rounds_scores=rounds)
    except Exception as error:  # noqa: BLE001 - whatever kept it from answering is its result
        return failure(error)


def _flex(asked: Inputs) -> Run:
    """FlexAttention with its block mask made once, outside what is timed, and fixed sizes."""
    call, device = asked.call, asked.q_BHQD.device
    limited = torch._dynamo.config.patch(recompile_limit=KERNELS_KEPT)
    compiled = limited(torch.compile(flex_attention, dynamic=False, fullgraph=True))
    mask = _block_mask(call, asked.visible_keys_BK, device)
    modifier = _score_rule(call, asked.distance_bias_HR, device)

    def run() -> AttentionOutput:
        with torch.no_grad():
            out_BHQD, rest = compiled(
                *asked.tensors,
                score_mod=modifier,
                block_mask=mask,
                scale=call.scale,
                enable_gqa=call.group_size > 1,
                return_aux=AuxRequest(lse=True),
            )
        answer = AttentionOutput(out_BHQD=out_BHQD, lse_BHQ=rest.lse)
        return join_sinks(answer, asked.sinks_H)

    return run
