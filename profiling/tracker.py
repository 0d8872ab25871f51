"""The peak memory of a pass, or of a step of training, with no GPU: the real model, traced with fake tensors.

It is PyTorch's own memory tracker that counts, operation by operation: an answer that does not come
from the calculator, and that takes seconds where the calculator takes less than one millisecond.
Memory that a kernel takes inside itself is not seen, nor are the allocator's rounding and its context.
"""

import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils._pytree import tree_leaves

from attnscope.kernels.errors import AttnscopeError, ModelUnsupported, UnsupportedCall
from attnscope.models.faked import Numbers, faked, prompt, step
from attnscope.models.grouped_products import GroupedProducts
from attnscope.models.pass_inputs import layers_of
from attnscope.models.shape import ModelShape, config_of
from attnscope.models.training_step import TrainingStep

Report = Callable[[float], None]
"""Called with the share of the modules that have run; what it raises ends the tracing."""

_CPU = torch.device("cpu")
_SDPA = "transformers_sdpa"
_DROPOUT = ("attention_dropout", "attention_probs_dropout_prob", "attn_pdrop", "dropout_rate")
_WEIGHTS, _GRADIENTS = ("Parameter", "Buffer"), "Gradient"


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedPeak:
    """What the tracker saw at the worst moment.

    Attributes:
        parameter_bytes: Parameters and buffers.
        cache_bytes: The key/value cache.
        activation_bytes: All else: what the pass made, and its inputs.
        module: The innermost module whose own peak that was; "optimiser" while that stepped.
        seconds: What tracing took.
        kept_bytes: In training, master weights and the optimiser's states.
        gradient_bytes: In training, of the parameters.
    """

    parameter_bytes: int
    cache_bytes: int
    activation_bytes: int
    module: str
    seconds: float
    kept_bytes: int = 0
    gradient_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """All of it."""
        held = self.parameter_bytes + self.cache_bytes + self.activation_bytes
        return held + self.kept_bytes + self.gradient_bytes


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

    def read(model: Any, watch: _Watch) -> None:
        with torch.no_grad():
            if phase == "prefill":
                inputs = prompt(model, batch, length, all_logits=all_logits)
            else:
                inputs = step(model, batch, length)
            watch.cache = inputs.get("past_key_values")
            given = (each for each in tree_leaves([*inputs.values()]) if isinstance(each, Tensor))
            watch.tracker.track_external(model, *given, *chain(*layers_of(watch.cache)))
            with watch.tracker:
                model(**inputs)

    return _traced(read, shape, backend, dtype, stated, report)


def traced_training(
    shape: ModelShape,
    *,
    backend: str,
    batch: int = 1,
    length: int,
    dtype: str = "bfloat16",
    optimizer: str = "adamw",
    checkpointing: bool = False,
    stated: bool = False,
    report: Report | None = None,
) -> TracedPeak:
    """Traces a step of training that is not the first: forward, backward, and the optimiser.

    Args:
        shape: As for `traced_peak`, as are all but the next two.
        backend: One with a backward pass.
        batch: Sequences.
        length: Tokens a sequence.
        dtype: Compute dtype.
        optimizer: One of `training_step.OPTIMIZERS`.
        checkpointing: Recompute each layer in the backward pass.
        stated: For the backward pass attention keeps what the flash kernels do.
        report: Told how far it is.

    Raises:
        UnknownBackend: As `traced_peak`, as are the other two.
        UnsupportedCall: Or PyTorch has no such optimiser.
        ModelUnsupported: The model asks for numbers that fake tensors do not have.
    """

    def train(model: Any, watch: _Watch) -> None:
        _check_dropout(backend, model.config.get_text_config())
        with Numbers():
            training = TrainingStep(model, optimizer, checkpointing=checkpointing)
        ids_BQ, kept = torch.zeros(batch, length, dtype=torch.long), training.kept()
        watch.kept = sum(tensor.nbytes for tensor in kept)
        watch.tracker.track_external(model, ids_BQ, *kept)
        with watch.tracker:
            training.differentiate(ids_BQ)
            before = watch.peak
            with Numbers():
                training.update()
        if watch.peak > before:
            watch.other = "optimiser"

    return _traced(train, shape, backend, dtype, stated, report)


def _check_dropout(backend: str, config: Any) -> None:
    if backend == _SDPA and any(getattr(config, name, None) for name in _DROPOUT):
        raise UnsupportedCall(
            f"{config.model_type} drops attention weights in training, which PyTorch's SDPA takes on a GPU only: on a "
            "CPU, where it is traced, it holds every score instead.",
            "Set the attention's dropout to 0 in the configuration, or check transformers_eager.",
        )


def _traced(
    run: "Callable[[Any, _Watch], None]",
    shape: ModelShape,
    backend: str,
    dtype: str,
    stated: bool,
    report: Report | None,
) -> TracedPeak:
    started = time.perf_counter()
    tracker = MemTracker()
    watch = _Watch(tracker, report)
    try:
        with ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            # Of modules that are run again: they are gone when the tracker looks for them.
            warnings.filterwarnings("ignore", "Module is None", UserWarning)
            config, kind = config_of(shape), getattr(torch, dtype)
            model, mode = stack.enter_context(faked(config, kind, backend, stated=stated))
            stack.enter_context(mode)
            stack.enter_context(GroupedProducts())
            _as_buffers(model)
            watch.follow(model, stack)
            run(model, watch)
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
    gradients = by_kind.get(_GRADIENTS, 0)
    return TracedPeak(
        parameter_bytes=weights,
        cache_bytes=watch.cached,
        activation_bytes=whole - weights - watch.cached - watch.kept - gradients,
        module=watch.other or _worst_module(tracker, whole),
        seconds=time.perf_counter() - started,
        kept_bytes=watch.kept,
        gradient_bytes=gradients,
    )


def _as_buffers(model: nn.Module) -> None:
    """Parameters that are never trained become buffers: PyTorch's tracker asks for the gradients of all others."""
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if not weight.requires_grad:
                delattr(module, name)
                module.register_buffer(name, weight.data)


class _Watch:
    """Called after every module: how much of the cache was there when the peak last rose, and how far the pass is.

    Attributes:
        tracker: What counts.
        cache: That the pass fills; None in training.
        cached: Bytes of it at the peak.
        kept: Bytes of master weights and of the optimiser's states.
        other: What was at work at the peak where no module was.
    """

    def __init__(self, tracker: MemTracker, report: Report | None) -> None:
        self.tracker, self._report = tracker, report
        self._peak, self._done, self._modules = 0, 0, 1
        self.cache: object = None
        self.cached, self.kept, self.other = 0, 0, ""

    @property
    def peak(self) -> int:
        """Bytes, so far."""
        return self.tracker.get_tracker_snapshot("peak")[_CPU]["Total"]

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
        if self.cache is not None and self.peak > self._peak:
            self._peak = self.peak
            # Storages, not tensors: what a window keeps of a prompt is a view of all of it.
            stored = (each.untyped_storage() for each in chain(*layers_of(self.cache)))
            self.cached = sum(each.nbytes() for each in stored)


def _worst_module(tracker: MemTracker, total: int) -> str:
    reached = [
        stats.mod_fqn
        for stats in tracker.memory_tracking.values()
        if stats.local_peak.get(_CPU) == total
    ]
    return max(reached, key=lambda name: name.count("."), default="")
