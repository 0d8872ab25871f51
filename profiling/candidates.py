"""What an adviser chooses among: every backend, approximation and window that could run a model's attention.

w window, s sinks, n tokens.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch

from attnscope.kernels.backends.backend import Backend
from attnscope.kernels.call import AttentionCall
from attnscope.kernels.patterns.composed import compose
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.patterns.sinks_window import SinksWindow
from attnscope.kernels.patterns.sliding_window import SlidingWindow
from attnscope.kernels.registry import BACKENDS, backend
from attnscope.models.pass_inputs import Phase
from attnscope.models.shape import LayerShape, ModelShape
from attnscope.profiling.attention_memory import OWN, call_of
from attnscope.profiling.output_errors import Way

Workload = Literal["document", "generation", "multimodal", "retrieval"]

WINDOWS = (64, 256, 1024, 4096)
SINKS = 4
_SINKING: tuple[Workload, ...] = ("generation", "retrieval")
"""Where what stands at the beginning, an instruction or a question, is needed all along."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One way to run a model's attention.

    Attributes:
        key: Names it, with its parameters.
        title: For people.
        backend: Its name.
        shape: The model as it is run: windows are in its layers.
        exact: Whether the model's own function is computed.
        pattern: What is laid over the layers that see everything; None where nothing is.
    """

    key: str
    title: str
    backend: str
    shape: ModelShape
    exact: bool
    pattern: Pattern | None = None

    @property
    def way(self) -> Way:
        """As `output_errors` takes it; windows by the tiled backend, which runs anywhere."""
        return Way(backend=self.backend if self.pattern is None else "tiled", pattern=self.pattern)


@dataclass(frozen=True, slots=True, kw_only=True)
class Excluded:
    """What is no candidate, and why."""

    key: str
    title: str
    reason: str


def candidates(
    shape: ModelShape,
    *,
    where: torch.device,
    dtype: str,
    phase: Phase,
    workload: Workload,
    length: int,
    batch: int,
) -> tuple[tuple[Candidate, ...], tuple[Excluded, ...]]:
    """What can run this model's attention there, and what cannot.

    Args:
        shape: The model.
        where: The device, as backends are asked.
        dtype: Compute dtype.
        phase: prefill or decode.
        workload: Decides which windows are worth a thought.
        length: Tokens a sequence.
        batch: Sequences.
    """
    asked = partial(
        _refused, where=where, dtype=dtype, decode=phase == "decode", length=length, batch=batch
    )
    if not shape.is_swappable:
        own = Candidate(key=OWN, title="its own attention", backend=OWN, shape=shape, exact=True)
        return (own,), ()
    found: list[Candidate] = []
    without: list[Excluded] = []
    for one in BACKENDS:
        reason = asked(one, shape)
        if reason:
            without.append(Excluded(key=one.name, title=one.title, reason=reason))
            continue
        found.append(
            Candidate(key=one.name, title=one.title, backend=one.name, shape=shape, exact=one.exact)
        )
    for pattern in _windows(workload):
        laid = over(shape, pattern)
        runners = [
            one
            for one in found
            if one.exact
            and one.pattern is None
            and not asked(backend(one.backend), laid)
            # Its lists of blocks are laid out anew for every length: too slow to solve with.
            and one.backend != "triton_block_sparse"
        ]
        if laid == shape or not runners:
            continue
        call = call_of(_attending(laid), batch=batch, length=length, dtype=dtype, decode=False)
        runner = min(runners, key=lambda one: _burden(backend(one.backend), call))
        found.append(
            Candidate(
                key=f"{pattern.key}:{_numbers(pattern)}",
                title=f"{pattern.title} on {runner.title}",
                backend=runner.backend,
                shape=laid,
                exact=False,
                pattern=pattern,
            )
        )
    return tuple(found), tuple(without)


def _burden(one: Backend, call: AttentionCall) -> tuple[int, int]:
    cost = one.cost(call)
    return cost.flops, cost.workspace_bytes


def _refused(
    one: Backend,
    shape: ModelShape,
    *,
    where: torch.device,
    dtype: str,
    decode: bool,
    length: int,
    batch: int,
) -> str:
    """Why a backend does not run the attention of some layer there; empty when it runs all."""
    calls = (
        call_of(layer, batch=batch, length=length, dtype=dtype, decode=decode)
        for layer in shape.layers
        if layer.is_attention
    )
    refusals = (one.refuses(call, where) for call in dict.fromkeys(calls))
    return next((refusal.reason for refusal in refusals if refusal is not None), "")


def over(shape: ModelShape, pattern: Pattern) -> ModelShape:
    """The model with a window laid over every layer that saw everything; its cache holds no more."""
    return replace(shape, layers=tuple(_over(layer, pattern) for layer in shape.layers))


def _attending(shape: ModelShape) -> LayerShape:
    return next(layer for layer in shape.layers if layer.is_attention)


def _over(layer: LayerShape, pattern: Pattern) -> LayerShape:
    if layer.kind != "full":
        return layer
    held = sum(int(number) for number in pattern.parameters.values())
    return replace(layer, kind="window", window=held, pattern=compose(pattern, layer.pattern))


def _windows(workload: Workload) -> Iterator[Pattern]:
    for window in WINDOWS:
        yield SlidingWindow(window=window)
        if workload in _SINKING:
            yield SinksWindow(window=window, sinks=SINKS)


def _numbers(pattern: Pattern) -> str:
    return ",".join(str(value) for value in pattern.parameters.values())
