"""The peak memory of a forward pass with no GPU: the real model, traced with fake tensors.

It is PyTorch's own memory tracker that counts, operation by operation: an answer that does not come
from the calculator, and that takes seconds where the calculator takes less than one millisecond.
Memory that a kernel takes inside itself is not seen, nor are the allocator's rounding and its context.
"""

import time
from dataclasses import dataclass

import torch
from torch.distributed._tools.mem_tracker import MemTracker

from attnscope.kernels.errors import AttnscopeError, ModelUnsupported
from attnscope.models.faked import faked, prompt
from attnscope.models.shape import ModelShape, config_of

_WEIGHTS = ("Parameter", "Buffer")


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedPeak:
    """What the tracker saw at the worst moment.

    Attributes:
        parameter_bytes: Parameters and buffers.
        activation_bytes: What the pass made, the key/value cache included.
        other_bytes: Inputs and the rest.
        module: The innermost module whose own peak that was.
        seconds: What tracing took.
    """

    parameter_bytes: int
    activation_bytes: int
    other_bytes: int
    module: str
    seconds: float

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.parameter_bytes + self.activation_bytes + self.other_bytes


def traced_peak(
    shape: ModelShape, *, backend: str, batch: int = 1, length: int, dtype: str = "bfloat16"
) -> TracedPeak:
    """Traces the prefill of a prompt, its cache kept, the last logits given.

    Args:
        shape: As `shape_of` makes it.
        backend: A backend's name, `transformers_eager` or `transformers_sdpa`. Of `tiled` the last
            tile is traced, see `models.faked`.
        batch: Sequences.
        length: Tokens a sequence.
        dtype: Compute dtype.

    Raises:
        UnknownBackend: No backend of that name.
        UnsupportedCall: The backend refuses a call of the model on a CPU.
        ModelUnsupported: The model asks for numbers that fake tensors do not have.
    """
    started = time.perf_counter()
    tracker = MemTracker()
    try:
        with (
            faked(config_of(shape), getattr(torch, dtype), backend) as (model, mode),
            mode,
            torch.no_grad(),
        ):
            inputs = prompt(model, batch, length)
            tracker.track_external(model, inputs["input_ids"])
            with tracker:
                model(**inputs)
    except AttnscopeError:
        raise
    except (RuntimeError, ValueError) as error:
        raise ModelUnsupported(
            f"{shape.architecture} cannot be traced on {backend}: "
            f"{str(error).strip().splitlines()[0][:200]}",
            "Measure it on the Profile page instead.",
        ) from error
    peak = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]
    by_kind = {str(getattr(kind, "value", kind)): size for kind, size in peak.items()}
    total = by_kind.pop("Total")
    weights = sum(by_kind.get(kind, 0) for kind in _WEIGHTS)
    activations = by_kind.get("Activation", 0) + by_kind.get("Temp", 0)
    return TracedPeak(
        parameter_bytes=weights,
        activation_bytes=activations,
        other_bytes=total - weights - activations,
        module=_worst_module(tracker, total),
        seconds=time.perf_counter() - started,
    )


def _worst_module(tracker: MemTracker, total: int) -> str:
    device = torch.device("cpu")
    reached = [
        stats.mod_fqn
        for stats in tracker.memory_tracking.values()
        if stats.local_peak.get(device) == total
    ]
    return max(reached, key=lambda name: name.count("."), default="")
