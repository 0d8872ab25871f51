"""One cell of a model measured: its latency, memory, kernels, modules and energy as one record.

Every instrument has a run of its own, since each of them slows what it watches; only the sampler,
which is a process of its own, watches while latency is timed. A cell that cannot be measured gives a
record too. After one that ran out of memory a process should be replaced where it can be: what failed
to fit may leave fragments behind.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from attnscope.kernels.errors import InvalidCall, ModelUnsupported
from attnscope.models.loading import LoadedModel
from attnscope.models.parts import parts
from attnscope.models.passes import Passes
from attnscope.models.swapping import swapped
from attnscope.profiling.asked import FILLED_BY, Instruments, blank
from attnscope.profiling.attempt import attempt
from attnscope.profiling.energy import energy
from attnscope.profiling.exactness import Verdict, judged
from attnscope.profiling.latency import Clock, cache_sweeper, clock_of, time_calls
from attnscope.profiling.memory import peak_memory, source_of
from attnscope.profiling.memory_timeline import Held, attention_scope, memory_timeline
from attnscope.profiling.part_times import time_parts
from attnscope.profiling.record import Cell, Failure, Prediction, RunRecord, now
from attnscope.profiling.sampler import Sampler
from attnscope.profiling.sources import FIGURES, Sample
from attnscope.profiling.trace import trace, write_memory_snapshot

Report = Callable[[str], None]
"""Called with what is measured next; what it raises ends the measurement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watcher:
    """Who is told what happens while it happens.

    Attributes:
        sample: Every sample of the device, on the sampler's thread.
        run: Seconds of every timed run, between two of them; what it raises ends the measurement.
    """

    sample: Callable[[Sample], None]
    run: Callable[[float], None]


_MOST_MOMENTS = 1000
_RELEASED = "what it held when memory ran out was released before anything else was measured"
_UNOBSERVED = {"flex": "memory by kind: a compiled kernel cannot be watched operator by operator"}


def measure(
    model: LoadedModel,
    cell: Cell,
    *,
    instruments: Instruments | None = None,
    predicted_bytes: int | None = None,
    prediction: Prediction | None = None,
    seed: int = 0,
    report: Report | None = None,
    watcher: Watcher | None = None,
    clock: Clock | None = None,
) -> RunRecord:
    """Measures one cell. Out of memory, a refusal and a wrong answer are results.

    Args:
        model: Its lock is held throughout.
        cell: What is measured; its dtype is the model's.
        instruments: What is measured of it; everything when None.
        predicted_bytes: Peak memory that was predicted, for the record.
        prediction: Of the time, likewise.
        seed: Of the tokens.
        report: Told what is measured next.
        watcher: Told of every sample and timed run.
        clock: How time is taken; the device's own when None.

    Raises:
        InvalidCall: The model is of another dtype.
        UnknownBackend: No such backend.
        ModelUnsupported: An encoder-decoder, or a model that reads pictures.
    """
    check_one_text(model)
    dtype = str(model.dtype).removeprefix("torch.")
    if cell.dtype != dtype:
        raise InvalidCall(
            f"{model.title} is loaded in {dtype}, and {cell.dtype} was asked for.",
            "Load it in that dtype.",
        )
    chosen = instruments or Instruments()
    empty = blank(model, cell, chosen, predicted_bytes, seed)
    watched = _watched(model.device, chosen.sampler_hz, watcher)
    with model.lock, torch.no_grad(), watched as seen:
        bench = partial(
            _Bench,
            model=model,
            cell=cell,
            chosen=chosen,
            seed=seed,
            report=report or _silent,
            watcher=watcher,
            clock=clock or clock_of(model.device),
        )
        figures = attempt(lambda: bench().figures(seen))
        found = _failed(figures) if isinstance(figures, Failure) else figures
        if model.device.type == "cuda" and "failure" in found:
            torch.cuda.empty_cache()
    telemetry = replace(
        empty.telemetry, samples=tuple(seen.samples), missing=tuple(sorted(seen.missing.items()))
    )
    return replace(empty, **found, prediction=prediction, telemetry=telemetry, created=now())


def check_one_text(model: LoadedModel) -> None:
    """As `check_one_stack`, of a loaded model; a picture has one size, and no length either."""
    check_one_stack(model.title, is_pair=model.kind == "encoder-decoder")
    if model.reads_pictures:
        raise ModelUnsupported(
            f"{model.title} reads pictures of one size, and a profile sweeps the length of a text.",
            "Profile a decoder or an encoder of text; on the page Backends this model is timed on a picture.",
        )


def check_one_stack(name: str, *, is_pair: bool) -> None:
    """Raises ModelUnsupported of an encoder-decoder: a cell has one length, and its passes have two."""
    if is_pair:
        raise ModelUnsupported(
            f"{name} is an encoder-decoder: it reads a source and a target, and a profile sweeps one length.",
            "Profile a decoder or an encoder; on the page Backends this model is timed on a source and its target.",
        )


def _failed(failure: Failure) -> dict[str, Any]:
    notes = (_RELEASED,) if failure.outcome == "out_of_memory" else ()
    return {"failure": failure, "notes": notes}


@dataclass(slots=True)
class _Seen:
    """What the sampler saw."""

    samples: list[Sample]
    missing: dict[str, str]


@dataclass(slots=True, kw_only=True)
class _Bench:
    """One cell on its model, ready to be run again and again."""

    model: LoadedModel
    cell: Cell
    chosen: Instruments
    seed: int
    report: Report
    watcher: Watcher | None
    clock: Clock
    passes: Passes = field(init=False)

    def figures(self, seen: _Seen) -> dict[str, Any]:
        """Everything that was asked for, by the names of `RunRecord`."""
        self.report("latency")
        self.passes = Passes(
            self.model, batch=self.cell.batch, length=self.cell.length, seed=self.seed
        )
        found = self._latency(seen)
        if self.chosen.judge:
            self.report("exactness")
            verdict = self._verdict()
            if verdict.wrong:
                failure = Failure(
                    outcome="wrong",
                    reason=f"{self.cell.backend}: {verdict.wrong}",
                    remedy="Use another backend here; a wrong answer has no latency.",
                )
                return {"exactness": verdict.exactness, "failure": failure}
            found["exactness"] = verdict.exactness
        return found | self._memory() | self._parts() | self._observed()

    def _latency(self, seen: _Seen) -> dict[str, Any]:
        device = self.model.device
        sweep = cache_sweeper(device) if self.chosen.cold else None
        self._start()
        began = time.monotonic()
        with swapped(self.model.model, self.cell.backend):
            timing = time_calls(
                {"": self._call},
                self.clock,
                self.chosen.effort,
                sweep=sweep,
                before=self._before,
                on_run=self._heard,
            )[""]
        ended = time.monotonic()
        return {"timing": timing, "energy": energy(seen.samples, began, ended, seen.missing)}

    def _heard(self, name: str, taken: float) -> None:
        del name
        if self.watcher is not None:
            self.watcher.run(taken)

    def _verdict(self) -> Verdict:
        self._start()

        def run(recorder: Callable[[Any], None]) -> None:
            with swapped(self.model.model, self.cell.backend, recorder):
                self._call()

        return judged(run)

    def _memory(self) -> dict[str, Any]:
        self.report("memory")
        with swapped(self.model.model, self.cell.backend):
            peak = peak_memory(
                self._call, self.model.device, held_bytes=self.model.nbytes, setup=self._refill
            )
        return {"peak": peak}

    def _parts(self) -> dict[str, Any]:
        if not self.chosen.parts:
            return {}
        self.report("modules")
        self._start()
        effort = replace(self.chosen.effort, seconds=0.0, warmup_seconds=0.0, warmup_runs=1)
        with swapped(self.model.model, self.cell.backend):
            return {
                "parts": time_parts(
                    self._call,
                    parts(self.model.model),
                    self.clock,
                    effort,
                    before=self._before.get(""),
                )
            }

    def _observed(self) -> dict[str, Any]:
        """What the profiler sees, attention calls marked."""
        device, backend = self.model.device, self.cell.backend
        self.report("kernels")
        self._start()
        with swapped(self.model.model, backend, around=lambda *_: attention_scope()):
            traced = trace(self._call, device, asked=backend, out=self.chosen.trace_to)
        found: dict[str, Any] = {"kernels": traced.kernels, "attention": traced.attention}
        self._snapshot()
        if not self.chosen.timeline:
            return found
        if backend in _UNOBSERVED:
            return {**found, "notes": (_UNOBSERVED[backend],)}
        self.report("memory by kind")
        with swapped(self.model.model, backend, around=lambda *_: attention_scope()):
            timeline = memory_timeline(
                self._call,
                device,
                setup=self._refill,
                held=self._held,
                kept=lambda _: {"kv_cache": self.passes.cache_tensors()},
                scores_shape=self._scores_shape,
            )
        return {**found, "timeline": timeline.thinned(_MOST_MOMENTS)}

    def _snapshot(self) -> None:
        """PyTorch's own, which there is on CUDA alone; the timeline tells of memory everywhere."""
        if self.chosen.snapshot_to is None or self.model.device.type != "cuda":
            return
        self.report("memory snapshot")
        self._refill()
        with swapped(self.model.model, self.cell.backend):
            write_memory_snapshot(self._call, self.model.device, self.chosen.snapshot_to)

    @property
    def _call(self) -> Callable[[], object]:
        return self.passes.read if self.cell.phase == "prefill" else self.passes.step

    @property
    def _before(self) -> dict[str, Callable[[], None]]:
        return {} if self.cell.phase == "prefill" else {"": self.passes.rewind}

    @property
    def _scores_shape(self) -> tuple[int, int]:
        length = self.cell.length
        return (length, length) if self.cell.phase == "prefill" else (1, length + 1)

    def _start(self) -> None:
        """As every run begins: without a cache, or with one that can be put back."""
        self._refill()
        if self.cell.phase == "decode":
            self.passes.keep()

    def _refill(self) -> None:
        """Without a cache, or with one that nothing but the model holds."""
        self.passes.forget()
        if self.cell.phase == "decode":
            with swapped(self.model.model, FILLED_BY):
                self.passes.read()

    def _held(self) -> Held:
        model = self.model.model
        return {
            "weights": [*model.parameters(), *model.buffers()],
            "kv_cache": self.passes.cache_tensors(),
        }


@contextmanager
def _watched(device: torch.device, hz: float | None, watcher: Watcher | None) -> Iterator[_Seen]:
    if hz is None:
        yield _Seen([], dict.fromkeys(FIGURES, "no sampler was asked for"))
        return
    source, target = source_of(device)
    told = None if watcher is None else watcher.sample
    with Sampler(source, target, hz=hz, on_sample=told) as sampler:
        yield _Seen(sampler.samples, sampler.missing)


def _silent(step: str) -> None:
    del step
