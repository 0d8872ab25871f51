"""Every backend on one model and prompt: whether it runs, whether it is right, what it costs, what ran.

Each layer's own q, k, v of a backend's run are held against dense attention in float64, so an error is told in the
layer that makes it. Logits are held against a run in which every layer's attention is that of float64, rounded to
the model's dtype. What is right, or says that it approximates, is then timed in turns with all others.

B batch, P positions, V vocabulary.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from attnscope.kernels import registry
from attnscope.kernels.backends.backend import Backend
from attnscope.kernels.errors import AttnscopeError, InvalidCall
from attnscope.models.loading import LoadedModel
from attnscope.models.prompt_pass import prompt_logits
from attnscope.models.prompting import Batch
from attnscope.models.swapping import LayerCall, attention_layers, swapped
from attnscope.profiling.attempt import attempt
from attnscope.profiling.attention_path import Executed
from attnscope.profiling.exact_rows import blocks
from attnscope.profiling.fault_causes import Cause, cause_of
from attnscope.profiling.head_errors import HeadError, layer_errors
from attnscope.profiling.latency import Clock, Effort, Ratio, Timing, clock_of, ratio, time_calls
from attnscope.profiling.measured import Measured
from attnscope.profiling.memory import MemoryPeak, peak_memory
from attnscope.profiling.memory_timeline import attention_scope
from attnscope.profiling.record import Failure
from attnscope.profiling.trace import trace

BASELINE = "eager"
"""Speed-ups are told against it."""

_CARRIER = "tiled"
"""The backend under which the exact run is made: it takes every call on every device."""
_LOGIT_BYTES = 2**28
_TIMING_SHARE = 0.4
"""Of a whole check, as progress tells it."""

Report = Callable[[float, str], None]
"""Called with the share done and what is done next; what it raises ends the check."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitDifference:
    """A run's logits beside those of the run with exact attention.

    Attributes:
        largest: Largest absolute difference.
        agreement: Share of the positions at which both name the same most likely token.
        positions: How many were compared: the last ones, as many as memory is spent on.
    """

    largest: Measured
    agreement: Measured
    positions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendResult:
    """What is known of one backend.

    Attributes:
        name: In the registry.
        title: For people.
        exact: Whether it claims to compute exact attention; what approximates is not judged.
        failure: Why it has no figures; "wrong" where its attention errs too much, and then it has no latency.
        heads: Every head of every layer, in order; empty where it did not run.
        cause: Of the first wrong head that a cause was proven for.
        logits: None where it did not run, or the model has no logits.
        timing: None until all are timed, as where it fails.
        peak: None where it failed.
        attention: The attention path that ran; None where it failed.
    """

    name: str
    title: str
    exact: bool
    failure: Failure | None = None
    heads: tuple[HeadError, ...] = ()
    cause: Cause | None = None
    logits: LogitDifference | None = None
    timing: Timing | None = None
    peak: MemoryPeak | None = None
    attention: Executed | None = None

    @property
    def is_wrong(self) -> bool:
        """Whether it claims to be exact, and is not."""
        return self.failure is not None and self.failure.outcome == "wrong"

    @property
    def worst(self) -> HeadError | None:
        """The head that errs most for what it may; of equals the first. None where nothing ran."""
        return max(self.heads, key=lambda head: head.excess, default=None)

    @property
    def wrong_heads(self) -> tuple[HeadError, ...]:
        """The heads with a wrong cell; none of a backend that approximates."""
        return tuple(head for head in self.heads if head.cell is not None and self.exact)


def speed_up(result: BackendResult, baseline: BackendResult | None) -> Ratio | None:
    """How many times faster a backend is than `BASELINE` in the same check; None where one was not timed."""
    if result.timing is None or baseline is None or baseline.timing is None:
        return None
    return ratio(baseline.timing, result.timing)


def check(
    model: LoadedModel,
    batch: Batch,
    *,
    names: Sequence[str] | None = None,
    effort: Effort | None = None,
    report: Report | None = None,
    on_result: Callable[[BackendResult], None] | None = None,
    clock: Clock | None = None,
) -> tuple[BackendResult, ...]:
    """Checks backends against float64 and one another.

    Args:
        model: Its lock is held throughout.
        batch: The prompts, as `prompting.batch_of` makes them.
        names: Of the registry; all when None.
        effort: Of the latency.
        report: Told how far it is, between any two layers or timed runs.
        on_result: Told each result once it is judged, and once more with its latency.
        clock: How time is taken; the device's own when None.

    Raises:
        InvalidCall: No backend is asked for.
        UnknownBackend: No such backend.
        ModelNotSwappable: The model's attention cannot be reached.
        UnsupportedCall: The model asks for something that no backend computes.
    """
    chosen = registry.BACKENDS if names is None else [registry.backend(name) for name in names]
    if not chosen:
        raise InvalidCall("No backend is asked for.", "Name at least one.")
    with model.lock, torch.no_grad():
        checking = _Check(
            model=model,
            batch=batch,
            report=report or _silent,
            steps=1 + len(chosen),
        )
        checking.run_exactly()
        found = {}
        for backend in chosen:
            found[backend.name] = checking.result(backend)
            if on_result is not None:
                on_result(found[backend.name])
        timings = checking.timings(
            [name for name, result in found.items() if result.failure is None],
            clock or clock_of(model.device),
            effort or Effort(),
        )
        for name, timing in timings.items():
            found[name] = replace(found[name], timing=timing)
            if on_result is not None:
                on_result(found[name])
    return tuple(found.values())


@dataclass(slots=True, kw_only=True)
class _Check:
    """One model and prompt, ready to be run under backend after backend."""

    model: LoadedModel
    batch: Batch
    report: Report
    steps: int
    done: int = 0
    positions: Tensor = field(init=False)
    exact_BPV: Tensor | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.batch.is_picture:  # all of it has one prediction
            self.positions = torch.zeros(1, dtype=torch.long, device=self.model.device)
            return
        # The logits that are kept are those of the last positions, at least one.
        vocabulary = int(getattr(self.model.model.config.get_text_config(), "vocab_size", 1))
        most = max(1, _LOGIT_BYTES // (4 * self.batch.size * vocabulary))
        first = max(0, self.batch.length - most)
        self.positions = torch.arange(first, self.batch.length, device=self.model.device)

    def run_exactly(self) -> None:
        """The run that logits are held against."""

        def write(call: LayerCall) -> None:
            self._tell("exact attention in float64", call)
            for sequence in range(self.batch.size):
                for rows in blocks(call, sequence, range(call.q_BHQD.shape[2])):
                    rows.out_BHQD.copy_(rows.exact().out_BHQD)

        self._tell("exact attention in float64")
        with swapped(self.model.model, _CARRIER, write):
            self.exact_BPV = self._run()
        self.done += 1

    def result(self, backend: Backend) -> BackendResult:
        """Everything of one backend but its latency."""
        plain = BackendResult(name=backend.name, title=backend.title, exact=backend.exact)
        self._tell(backend.name)
        judged = _tried(partial(self._judged, plain))
        if isinstance(judged, Failure):
            judged = replace(plain, failure=judged)
        if judged.failure is None:
            figures = _tried(partial(self._figures, judged))
            judged = replace(judged, failure=figures) if isinstance(figures, Failure) else figures
        if self.model.device.type == "cuda" and judged.failure is not None:
            torch.cuda.empty_cache()
        self.done += 1
        return judged

    def timings(self, names: Sequence[str], clock: Clock, effort: Effort) -> Mapping[str, Timing]:
        """The latency of those that are right, in turns."""
        if not names:
            return {}
        runs, stage = 0, ExitStack()

        def enter(name: str) -> None:
            stage.close()
            stage.enter_context(swapped(self.model.model, name))

        def heard(name: str, taken: float) -> None:
            nonlocal runs
            runs += 1
            part = min(1.0, runs / (effort.runs * len(names)))
            self.report(1 - _TIMING_SHARE * (1 - part), f"latency in turns, {name}")

        self.report(1 - _TIMING_SHARE, "latency in turns")
        with stage:
            return time_calls(
                dict.fromkeys(names, self._run),
                clock,
                effort,
                before={name: partial(enter, name) for name in names},
                on_run=heard,
            )

    def _judged(self, plain: BackendResult) -> BackendResult:
        heads: list[HeadError] = []
        causes: list[Cause] = []

        def judge(call: LayerCall) -> None:
            self._tell(f"{plain.name}: layer {call.layer}", call)
            errors = layer_errors(call, self.batch.spans)
            heads.extend(errors.heads)
            if not plain.exact or causes:
                return
            wrong = [head for head in errors.heads if head.cell is not None]
            for head in sorted(wrong, key=lambda one: one.excess, reverse=True)[:2]:
                cause = cause_of(call, errors, head.head, self.batch.spans)
                causes.extend([] if cause is None else [cause])

        with swapped(self.model.model, plain.name, judge):
            logits_BPV = self._run()
        result = replace(
            plain,
            heads=tuple(heads),
            cause=next(iter(causes), None),
            logits=None if logits_BPV is None else self._difference(logits_BPV),
        )
        return replace(result, failure=_wrong(result))

    def _figures(self, judged: BackendResult) -> BackendResult:
        name, model = judged.name, self.model
        self._tell(f"{name}: memory", share=0.7)
        with swapped(model.model, name):
            peak = peak_memory(self._run, model.device, held_bytes=model.nbytes)
        self._tell(f"{name}: kernels", share=0.85)
        with swapped(model.model, name, around=lambda *_: attention_scope()):
            attention = trace(self._run, model.device, asked=name).attention
        return replace(judged, peak=peak, attention=attention)

    def _run(self) -> Tensor | None:
        return prompt_logits(self.model, self.batch, self.positions)

    def _difference(self, logits_BPV: Tensor) -> LogitDifference | None:
        if self.exact_BPV is None:
            return None
        largest, same, total = 0.0, 0, 0
        for sequence, (start, end) in enumerate(self.batch.spans):
            inside_P = (self.positions >= start) & (self.positions < end)
            if not inside_P.any():
                continue
            ours_PV, exact_PV = logits_BPV[sequence][inside_P], self.exact_BPV[sequence][inside_P]
            if not ours_PV.isfinite().all():
                missing = Measured.missing("the logits hold NaN or infinity")
                return LogitDifference(
                    largest=missing, agreement=missing, positions=len(self.positions)
                )
            largest = max(largest, (ours_PV.double() - exact_PV.double()).abs().max().item())
            same += int((ours_PV.argmax(-1) == exact_PV.argmax(-1)).sum())
            total += len(ours_PV)
        return LogitDifference(
            largest=Measured(largest), agreement=Measured(same / total), positions=total
        )

    def _tell(self, words: str, call: LayerCall | None = None, *, share: float = 0.0) -> None:
        """Before a layer, or a step at a share of its backend's part."""
        if call is not None:
            share = 0.7 * min(1.0, call.layer / attention_layers(self.model.model.config))
        self.report((1 - _TIMING_SHARE) * (self.done + share) / self.steps, words)


def _tried(work: Callable[[], BackendResult]) -> BackendResult | Failure:
    """See `attempt`; a backend that breaks in any other way has failed, and the others are checked all the same."""
    try:
        return attempt(work)
    except AttnscopeError:
        raise
    except Exception as error:  # noqa: BLE001 - a compiler's or a driver's: there is no telling which
        first = str(error).strip().partition("\n")[0][:200]
        return Failure(
            outcome="failed",
            reason=f"It broke: {type(error).__name__}: {first}",
            remedy="Use another backend here.",
        )


def _wrong(result: BackendResult) -> Failure | None:
    wrong, worst = result.wrong_heads, result.worst
    if not wrong or worst is None:
        return None
    where = f"layer {worst.layer}, head {worst.head}"
    erring = (
        "holds NaN or infinity"
        if worst.relative is None
        else f"errs by {worst.relative:.1e} of its size, and {worst.allowed:.1e} is allowed"
    )
    layers = len({head.layer for head in wrong})
    which = (
        f"{where} {erring}"
        if len(wrong) == 1
        else f"{len(wrong)} heads in {layers} layer{'s' * (layers > 1)} are wrong; {where} {erring}"
    )
    return Failure(
        outcome="wrong",
        reason=which,
        remedy="Use another backend here; a wrong answer has no latency.",
    )


def _silent(share: float, words: str) -> None:
    del share, words
