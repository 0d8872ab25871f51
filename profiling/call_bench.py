"""Attention calls, and what belongs to them, on random tensors, timed in turns: a mechanism with no model around it.

B batch, H query heads, G kv heads, Q, K positions, D head dim.
"""

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from attnscope.kernels.backends.backend import Backend
from attnscope.kernels.call import AttentionCall
from attnscope.kernels.errors import UnsupportedCall
from attnscope.profiling.latency import Call, Clock, Effort, Timing, clock_of, time_calls
from attnscope.profiling.measured import Measured
from attnscope.profiling.memory import peak_memory

Make = Callable[[], Call]
"""Makes the tensors of a run, and gives the run over them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Something that is timed.

    Attributes:
        title: What runs, for people.
        over: Over what: a pattern, pages, a table.
        backend: Name of the backend that runs; empty where none does.
        make: Its tensors, and the run; an UnsupportedCall is its refusal.
    """

    title: str
    over: str
    make: Make
    backend: str = ""

    @classmethod
    def of(
        cls, backend: Backend, call: AttentionCall, device: torch.device, *, seed: int = 0
    ) -> "Trial":
        """A backend's call on random tensors; calls of equal shapes get equal numbers."""
        return cls(
            title=backend.title,
            over=call.pattern.title,
            make=partial(_ready, backend, call, device, seed),
            backend=backend.name,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFigures:
    """What one run took.

    Attributes:
        timing: Its times; None where it did not run.
        peak: Bytes that it held at one moment besides the tensors it was given.
        failure: Why it did not run; empty where it did.
    """

    timing: Timing | None
    peak: Measured
    failure: str = ""


def bench(
    trials: Mapping[str, Trial],
    device: torch.device,
    *,
    effort: Effort | None = None,
    clock: Clock | None = None,
    seed: int = 0,
    on_run: Callable[[str, float], None] | None = None,
) -> dict[str, CallFigures]:
    """Times each in turns with the others, and finds the memory that it holds.

    Args:
        trials: By name.
        device: Where their tensors are.
        effort: See `time_calls`.
        clock: The device's own when None.
        seed: Of the order.
        on_run: Told of every timed run; what it raises ends the measurement.

    Returns:
        By name. A refusal, or running out of memory, is a result.
    """
    failed: dict[str, CallFigures] = {}
    ready: dict[str, Call] = {}
    for name, trial in trials.items():
        run, failure = _attempt(trial.make)
        if run is None:
            failed[name] = _failed(failure)
        else:
            ready[name] = run
    with torch.no_grad():
        peaks = {name: peak_memory(run, device).transient for name, run in ready.items()}
        times = (
            time_calls(ready, clock or clock_of(device), effort, seed=seed, on_run=on_run)
            if ready
            else {}
        )
    found = {name: CallFigures(timing=times[name], peak=peaks[name]) for name in ready}
    return {name: (failed | found)[name] for name in trials}


def random_inputs(
    call: AttentionCall, device: torch.device, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The q, k and v of a call, standard normal, drawn on the CPU so that every device gets the same."""
    draw = torch.Generator().manual_seed(seed)
    shapes = (
        (call.batch, call.query_heads, call.query_length, call.head_dim),
        (call.batch, call.kv_heads, call.key_length, call.head_dim),
        (call.batch, call.kv_heads, call.key_length, call.value_dim),
    )
    q_BHQD, k_BGKD, v_BGKD = (
        torch.randn(shape, generator=draw).to(device, call.torch_dtype) for shape in shapes
    )
    return q_BHQD, k_BGKD, v_BGKD


def _failed(reason: str) -> CallFigures:
    return CallFigures(timing=None, peak=Measured.missing(reason), failure=reason)


def _ready(backend: Backend, call: AttentionCall, device: torch.device, seed: int) -> Call:
    backend.check(call, device)
    return partial(backend.run, *random_inputs(call, device, seed), call)


def _attempt(make: Make) -> tuple[Call | None, str]:
    """A run that was made and run once, or why it cannot, in words."""
    try:
        with torch.no_grad():
            run = make()
            run()
    except UnsupportedCall as error:
        return None, error.message
    except (RuntimeError, MemoryError) as error:
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and "you tried to allocate" not in str(error):
            raise
    else:
        return run, ""
    # Here and not above: until the error is let go, its traceback holds the tensors.
    gc.collect()
    return None, "Out of memory."
