"""What an adviser chooses among: every backend, approximation and pattern that could run a model's attention."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch

from attnscope.kernels.backends.backend import Backend
from attnscope.kernels.call import AttentionCall
from attnscope.kernels.patterns.composed import compose
from attnscope.kernels.patterns.local import Local
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.patterns.sinks_window import SinksWindow
from attnscope.kernels.patterns.sliding_window import SlidingWindow
from attnscope.kernels.registry import BACKENDS, backend
from attnscope.models.pass_inputs import Phase
from attnscope.models.shape import LayerShape, ModelShape
from attnscope.profiling.attention_memory import OWN, call_of, cost_of
from attnscope.profiling.laid_patterns import KEYS, cached_keys, laid_patterns, looks_back_only
from attnscope.profiling.output_errors import Way

Workload = Literal["document", "generation", "multimodal", "retrieval"]

_FARTHEST_LAID = 131_072
_BANDS = (SlidingWindow, SinksWindow, Local)
_JUDGED = 4096
"""Tokens at which the backend of a pattern is chosen: once for all lengths, which a solver asks for by the dozen."""
_SINKING: tuple[Workload, ...] = ("generation", "retrieval")
"""Where what stands at the beginning, an instruction or a question, is needed all along."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One way to run a model's attention.

    Attributes:
        key: Names it, with its parameters.
        title: For people.
        backend: Its name.
        shape: The model as it is run: patterns are in its layers.
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
    def judged_on(self) -> str:
        """The backend by which its errors are found; patterns by the tiled one, which runs anywhere."""
        return self.backend if self.pattern is None else "tiled"

    @property
    def way(self) -> Way:
        """As `output_errors` takes it."""
        return Way(backend=self.judged_on, pattern=self.pattern)

    @property
    def family(self) -> str:
        """Of its pattern, or its backend: candidates of one family differ in numbers alone."""
        return self.backend if self.pattern is None else self.pattern.key


@dataclass(frozen=True, slots=True, kw_only=True)
class Excluded:
    """What is no candidate, and why.

    Attributes:
        key: Of the candidate.
        title: For people.
        reason: A sentence's part.
        family: See `Candidate.family`.
        error: Its measured error, where that is the reason; else None.
    """

    key: str
    title: str
    reason: str
    family: str
    error: float | None = None


_AXIAL = Excluded(
    key="axial",
    title="axial",
    reason="its grid is made for one length, and a text is no grid: see its card, and Sparsity",
    family="axial",
)
_TOO_LONG = Excluded(
    key="laid",
    title="patterns other than windows",
    reason=f"their blocks are laid out row by row, too slow to advise by past {_FARTHEST_LAID} tokens",
    family="laid",
)


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
        workload: Decides whether windows that keep the beginning are worth a thought.
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
            without.append(Excluded(key=one.name, title=one.title, reason=reason, family=one.name))
            continue
        found.append(
            Candidate(key=one.name, title=one.title, backend=one.name, shape=shape, exact=one.exact)
        )
    if length > _FARTHEST_LAID:
        without.append(_TOO_LONG)
    found += _within_patterns(
        shape, found, asked, where=where, workload=workload, length=length, batch=batch, dtype=dtype
    )
    return tuple(found), (*without, _AXIAL)


def _within_patterns(
    shape: ModelShape,
    found: list[Candidate],
    asked: Callable[[Backend, ModelShape], str],
    *,
    where: torch.device,
    workload: Workload,
    length: int,
    batch: int,
    dtype: str,
) -> Iterator[Candidate]:
    """Each pattern on the exact backend that does least for it, one kernel where there is one."""
    exact = [
        backend(one.backend)
        for one in found
        # Its lists of blocks are laid out anew for every length: too slow to solve with.
        if one.exact and one.backend != "triton_block_sparse"
    ]
    for pattern in _patterns(shape, workload, length):
        laid = over(shape, pattern)
        runners = [one for one in exact if not asked(one, laid)]
        if laid == shape or not runners:
            continue
        call = call_of(_attending(laid), batch=batch, length=_JUDGED, dtype=dtype, decode=False)
        runner = min(runners, key=lambda one: (not is_fused(one.name, where), *_burden(one, call)))
        yield Candidate(
            key=f"{pattern.key}:{_numbers(pattern)}",
            title=f"{pattern.title} on {runner.title}",
            backend=runner.name,
            shape=laid,
            exact=False,
            pattern=pattern,
        )


def is_fused(backend: str, where: torch.device) -> bool:
    """Whether scores stay on the chip.

    On a GPU those of the tiled backend, operations of PyTorch one by one, go through memory tile by tile,
    which its declared bytes do not count.
    """
    return backend != "tiled" or where.type == "cpu"


def _burden(one: Backend, call: AttentionCall) -> tuple[int, int]:
    cost = cost_of(one.name, call)
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
    """The model with a pattern laid over every layer that saw everything.

    Its cache holds no more than the pattern can show; where that is all of it, a step is taken to
    read all of it, for no decoding kernel here skips keys.
    """
    return replace(shape, layers=tuple(_over(layer, pattern) for layer in shape.layers))


def _attending(shape: ModelShape) -> LayerShape:
    return next(layer for layer in shape.layers if layer.is_attention)


def _over(layer: LayerShape, pattern: Pattern) -> LayerShape:
    if layer.kind != "full":
        return layer
    laid = replace(layer, pattern=compose(pattern, layer.pattern))
    held = cached_keys(pattern)
    return laid if held is None else replace(laid, kind="window", window=held)


def _patterns(shape: ModelShape, workload: Workload, length: int) -> Iterator[Pattern]:
    is_causal = looks_back_only(_attending(shape).pattern)
    for keys in KEYS:
        for pattern in laid_patterns(
            keys, length=length, is_causal=is_causal, sinks=workload in _SINKING
        ):
            if length <= _FARTHEST_LAID or isinstance(pattern, _BANDS):
                yield pattern


def _numbers(pattern: Pattern) -> str:
    return ",".join(map(str, pattern.parameters.values()))
