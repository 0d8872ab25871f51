"""The peak memory of a forward pass with no GPU: the real model, traced with fake tensors.

It is PyTorch's own memory tracker that counts, operation by operation: an answer that does not come
from the calculator, and that takes seconds where the calculator takes less than one millisecond.
Memory that a kernel takes inside itself is not seen, nor are the allocator's rounding and its context.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import torch
from torch import nn
from torch.distributed._tools.mem_tracker import MemTracker

from attnscope.kernels.errors import AttnscopeError, ModelUnsupported
from attnscope.models.faked import faked, prompt, step
from attnscope.models.pass_inputs import layers_of
from attnscope.models.shape import ModelShape, config_of

Report = Callable[[float], None]
"""Called with the share of the modules that have run; what it raises ends the tracing."""

_CPU = torch.device("cpu")
_WEIGHTS = ("Parameter", "Buffer")


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedPeak:
    """What the tracker saw at the worst moment.

    Attributes:
        parameter_bytes: Parameters and buffers.
        cache_bytes: The key/value cache.
        activation_bytes: All else: what the pass made, and its inputs.
        module: The innermost module whose own peak that was.
        seconds: What tracing took.
    """

    parameter_bytes: int
    cache_bytes: int
    activation_bytes: int
    module: str
    seconds: float

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.parameter_bytes + self.cache_bytes + self.activation_bytes


def traced_peak(
    shape: ModelShape,
    *,
    backend: str,
    batch: int = 1,
    length: int,
    dtype: str = "bfloat16",
    phase: Literal["prefill", "decode"] = "prefill",
    all_logits: bool = False,
    stated: bool = False,
    report: Report | None = None,
) -> TracedPeak:
    """Traces the prefill of a prompt, its cache kept, or the step after it.

    Args:
        shape: As `shape_of` makes it.
        backend: A backend's name, `transformers_eager` or `transformers_sdpa`. Of `tiled` the last
            tile is traced, see `models.faked`.
        batch: Sequences.
        length: Tokens a sequence; in a decoding step, with the new one.
        dtype: Compute dtype.
        phase: prefill or decode.
        all_logits: In a prefill, of every position, not only of the last.
        stated: Attention holds what its backend states; all else is traced.
        report: Told how far it is.

    Raises:
        UnknownBackend: No backend of that name.
        UnsupportedCall: The backend refuses a call of the model on a CPU, where it is not `stated`.
        ModelUnsupported: The model asks for numbers that fake tensors do not have.
    """
    started = time.perf_counter()
    tracker = MemTracker()
    try:
        with ExitStack() as stack:
            config, kind = config_of(shape), getattr(torch, dtype)
            model, mode = stack.enter_context(faked(config, kind, backend, stated=stated))
            stack.enter_context(mode)
            stack.enter_context(torch.no_grad())
            if phase == "prefill":
                inputs = prompt(model, batch, length, all_logits=all_logits)
            else:
                inputs = step(model, batch, length)
            cache = inputs.get("past_key_values")
            tracker.track_external(model, inputs["input_ids"], *chain(*layers_of(cache)))
            watch = _Watch(tracker, cache, report)
            watch.follow(model, stack)
            with tracker:
                model(**inputs)
    except AttnscopeError:
        raise
    except Exception as error:  # any operation of any model
        lines = str(error).strip().splitlines()
        raise ModelUnsupported(
            f"{shape.architecture} cannot be traced on {backend}: "
            f"{lines[0][:200] if lines else type(error).__name__}",
            "Measure it on the Profile page instead.",
        ) from error
    peak = tracker.get_tracker_snapshot("peak")[_CPU]
    by_kind = {str(getattr(kind, "value", kind)): size for kind, size in peak.items()}
    whole = by_kind.pop("Total")
    weights = sum(by_kind.get(kind, 0) for kind in _WEIGHTS)
    return TracedPeak(
        parameter_bytes=weights,
        cache_bytes=watch.cached,
        activation_bytes=whole - weights - watch.cached,
        module=_worst_module(tracker, whole),
        seconds=time.perf_counter() - started,
    )


class _Watch:
    """Called after every module: how much of the cache was there when the peak last rose, and how far the pass is."""

    def __init__(self, tracker: MemTracker, cache: object, report: Report | None) -> None:
        self._tracker, self._cache, self._report = tracker, cache, report
        self._peak, self._done, self._modules = 0, 0, 1
        self.cached = 0

    def follow(self, model: nn.Module, stack: ExitStack) -> None:
        """Watch a model for as long as the stack is open."""
        modules = list(model.modules())
        self._modules = len(modules)
        for module in modules:
            stack.callback(module.register_forward_hook(self._ran).remove)

    def _ran(self, *_: object) -> None:
        self._done += 1
        if self._report is not None:
            self._report(min(self._done / self._modules, 1.0))
        peak = self._tracker.get_tracker_snapshot("peak")[_CPU]["Total"]
        if peak > self._peak:
            self._peak = peak
            # Storages, not tensors: what a window keeps of a prompt is a view of all of it.
            stored = (each.untyped_storage() for each in chain(*layers_of(self._cache)))
            self.cached = sum(each.nbytes() for each in stored)


def _worst_module(tracker: MemTracker, total: int) -> str:
    reached = [
        stats.mod_fqn
        for stats in tracker.memory_tracking.values()
        if stats.local_peak.get(_CPU) == total
    ]
    return max(reached, key=lambda name: name.count("."), default="")
