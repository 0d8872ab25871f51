"""Attention calls alone, on random tensors, timed in turns: what a mechanism costs with no model around it.

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
from attnscope.profiling.latency import Clock, Effort, Timing, clock_of, time_calls
from attnscope.profiling.measured import Measured
from attnscope.profiling.memory import peak_memory

Asked = tuple[Backend, AttentionCall]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFigures:
    """What one attention call took.

    Attributes:
        timing: Its times; None where it did not run.
        peak: Bytes that it held at one moment besides q, k and v.
        failure: Why it did not run; empty where it did.
    """

    timing: Timing | None
    peak: Measured
    failure: str = ""


def bench_calls(
    asked: Mapping[str, Asked],
    device: torch.device,
    *,
    effort: Effort | None = None,
    clock: Clock | None = None,
    seed: int = 0,
    on_run: Callable[[str, float], None] | None = None,
) -> dict[str, CallFigures]:
    """Times each call in turns with the others, and finds the memory that it holds.

    Args:
        asked: A backend and its call, by name. Calls of equal shapes get equal numbers.
        device: Where the tensors are made.
        effort: See `time_calls`.
        clock: The device's own when None.
        seed: Of the numbers, standard normal, and of the order.
        on_run: Told of every timed run; what it raises ends the measurement.

    Returns:
        By name. A refusal, or running out of memory, is a result.
    """
    refused, ready = {}, {}
    for name, (backend, call) in asked.items():
        refusal = backend.refuses(call, device)
        if refusal is not None:
            refused[name] = _failed(f"{backend.title}: {refusal.reason}.")
            continue
        run = partial(backend.run, *random_inputs(call, device, seed), call)
        failure = _attempt(run)
        if failure:
            refused[name] = _failed(failure)
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
    return {name: (refused | found)[name] for name in asked}


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


def _attempt(run: Callable[[], object]) -> str:
    """Runs once; why it cannot, in words."""
    try:
        with torch.no_grad():
            run()
    except UnsupportedCall as error:
        return str(error)
    except (RuntimeError, MemoryError) as error:
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and "you tried to allocate" not in str(error):
            raise
    else:
        return ""
    # Here and not above: until the error is let go, its traceback holds the tensors.
    gc.collect()
    return "Out of memory."
