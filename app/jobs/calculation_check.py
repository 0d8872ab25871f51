"""An estimate held against the model's own class, traced without a weight, and against a run where one is possible."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attnscope.app.jobs.backends_offered import device_of
from attnscope.app.jobs.calculation_plan import plan_asked, shape_asked
from attnscope.app.jobs.context import Context
from attnscope.kernels.errors import (
    AttnscopeError,
    JobCancelled,
    ModelUnsupported,
    PromptRefused,
    UnsupportedCall,
)
from attnscope.profiling.units import count, nbytes, seconds

if TYPE_CHECKING:
    import torch

    from attnscope.profiling.estimate import MemoryEstimate
    from attnscope.profiling.plan import Plan
    from attnscope.profiling.record import RunRecord

Answer = dict[str, Any]
Arguments = dict[str, Any]
Step = Callable[[float], None]

PARTS = ("weights", "cache", "activations", "total")
"""Bytes of parameters and buffers, of the key/value cache, of all else, and of everything."""
TRAINING_PARTS = ("weights", "kept", "gradients", "activations", "total")
"""In training: `kept` are master weights and the optimiser's states."""

MOST_LAYERS = 256
_TRACED, _RUNS = 0.8, 5
_CPU_FLOPS_PER_SECOND = 2e10
_LONGEST_RUN_S = 20.0
_STATED = (
    "This backend's kernel cannot be traced: its calls hold what it states, and all else is traced."
)


def check(arguments: Arguments, context: Context) -> Answer:
    """Trace what the question `calculation` estimates, and measure it where this machine can.

    Arguments: those of `calculation`.

    Returns:
        `closed`, `traced` and `measured`, each `PARTS`, or `TRAINING_PARTS`, in bytes (None where nobody can tell) with
        `moment`, the part or the module that was at work, and `note`; or `reason` and `remedy` in their place.
    """
    from attnscope.profiling.calculator import estimate_plan

    context.progress(0.0, "Building the model's shape")
    plan = plan_asked(shape_asked(arguments, context), arguments)
    length = arguments["length"]
    found = estimate_plan(plan, length)
    tracing = context.part(0.02, _TRACED, "Tracing the model's own class")
    running = context.part(_TRACED, 1.0, "Running it on this machine", total=_RUNS, unit="runs")
    return {
        "closed": _closed(found),
        "traced": _tried(lambda: _traced(plan, length, tracing)),
        "measured": _tried(lambda: _measured(plan, found, arguments, context, running)),
    }


def _tried(work: Callable[[], Answer]) -> Answer:
    try:
        return work()
    except JobCancelled:
        raise
    except AttnscopeError as error:
        return {"reason": error.message, "remedy": error.remedy}


def _closed(found: "MemoryEstimate") -> Answer:
    terms = {term.name: term.nbytes for term in found.terms}
    weights = terms.get("weights", 0) + terms.get("buffers", 0)
    if found.phase == "training":
        held = (terms.get("master weights", 0) + terms.get("optimiser states", 0),)
        held += (terms.get("gradients", 0),)
    else:
        held = (terms.get("key/value cache", 0),)
    rest = found.total_bytes - weights - sum(held)
    return _column((weights, *held, rest, found.total_bytes), found.peak_phase, "")


def _traced(plan: "Plan", length: int, report: Step) -> Answer:
    from attnscope.profiling.tracker import traced_peak, traced_training

    _check_pass(plan)
    _check_traceable(plan)
    trains = plan.phase == "training"
    names = ("backend", "batch", "dtype")
    names += ("optimizer", "checkpointing") if trains else ("phase", "all_logits")
    asked: dict[str, Any] = {name: getattr(plan, name) for name in names}
    asked |= {"length": length, "report": report}
    trace = traced_training if trains else traced_peak
    note = ""
    try:
        peak = trace(plan.shape, **asked)
    except (UnsupportedCall, ModelUnsupported):
        if plan.backend.startswith("transformers_"):
            raise
        peak, note = trace(plan.shape, stated=True, **asked), _STATED
    held = (peak.kept_bytes, peak.gradient_bytes) if trains else (peak.cache_bytes,)
    parts = (peak.parameter_bytes, *held, peak.activation_bytes, peak.total_bytes)
    return _column(parts, peak.module, note)


def _check_pass(plan: "Plan") -> None:
    """Refuses what is neither traced nor run."""
    if plan.page is not None:
        raise UnsupportedCall(
            "The model's own class keeps a cache that grows to fit, without pages.",
            "Set the page of the cache to 0 under More.",
        )


def _check_traceable(plan: "Plan") -> None:
    if plan.shape.quantisation is not None:
        raise UnsupportedCall(
            f"The weights are quantised, and the class is built with weights in {plan.dtype}.",
            "Take quantization_config out of the configuration and paste it under More.",
        )
    if len(plan.shape.layers) > MOST_LAYERS:
        raise UnsupportedCall(
            f"{count(len(plan.shape.layers))} layers are too many to trace: {MOST_LAYERS} at most.",
            "Paste a configuration of fewer layers; each takes the same.",
        )


def _measured(
    plan: "Plan", found: "MemoryEstimate", arguments: Arguments, context: Context, report: Step
) -> Answer:
    _check_pass(plan)
    _check_run(plan, found, str(arguments["model"]))
    _check_room(plan, found, device_of(context.device))
    measure = _trained if plan.phase == "training" else _passed
    return measure(plan, found.length, arguments, context, report)


def _trained(
    plan: "Plan", length: int, arguments: Arguments, context: Context, report: Step
) -> Answer:
    from attnscope.app.jobs.work import models, wanted
    from attnscope.profiling.training_run import training_peak

    which = wanted({**arguments, "source": arguments["model"], "device": "auto"}, context)
    names = ("backend", "batch", "optimizer", "checkpointing")
    asked: dict[str, Any] = {name: getattr(plan, name) for name in names}
    with models(context).borrow(**which, progress=lambda *_: context.check()) as model:
        report(0.5)
        peak = training_peak(model, length=length, **asked)
        where = f"{model.device}, a copy of {model.title}"
    return _column((peak.weights, peak.kept, None, None, peak.total), where, "")


def _passed(
    plan: "Plan", length: int, arguments: Arguments, context: Context, report: Step
) -> Answer:
    from attnscope.app.jobs.work import models, wanted
    from attnscope.profiling.asked import Instruments
    from attnscope.profiling.latency import Effort
    from attnscope.profiling.measure import measure
    from attnscope.profiling.record import Cell

    decodes = plan.phase == "decode"
    cell = Cell(
        backend=plan.backend,
        phase="decode" if decodes else "prefill",
        batch=plan.batch,
        length=length - decodes,
        dtype=plan.dtype,
    )
    once = Effort(runs=2, seconds=0.0, warmup_runs=1, warmup_seconds=0.0)
    instruments = Instruments(effort=once, judge=False, parts=False, sampler_hz=None)
    steps = iter(range(_RUNS))
    which = wanted({**arguments, "source": arguments["model"], "device": "auto"}, context)
    with models(context).borrow(**which, progress=lambda *_: context.check()) as model:
        record = measure(
            model, cell, instruments=instruments, report=lambda _: report(next(steps) / _RUNS)
        )
    if record.failure is not None:
        raise UnsupportedCall(record.failure.reason, record.failure.remedy)
    return _column(_parts_of(record), f"{record.machine.device}, {record.machine.name}", "")


def _parts_of(record: "RunRecord") -> tuple[int | None, ...]:
    assert record.peak is not None
    assert record.peak.allocated.value is not None
    weights, total = record.model.weight_bytes, int(record.peak.allocated.value)
    timeline = record.timeline
    if timeline is None:
        return weights, None, None, total
    column = timeline.kinds.index("kv_cache")
    # A step that replaces a layer's entry has both: the old one is no cache any more, as in the estimate.
    cache = min(timeline.nbytes[at][column] for at in (timeline.peak, -1))
    return weights, cache, total - weights - cache, total


def _check_run(plan: "Plan", found: "MemoryEstimate", source: str) -> None:
    """Refuses what no run here is, before a weight is loaded."""
    from attnscope.models.shipped import SHIPPED

    if source not in SHIPPED and not source.startswith(("/", "./")):
        raise UnsupportedCall(
            "Only the configuration was read: this check downloads no weights.",
            "Measure the model on the page Profile; its runs then stand below.",
        )
    if plan.backend.startswith("transformers_") and plan.phase != "training":
        raise UnsupportedCall(
            "Runs here swap in a backend of ours, and this is the model's own attention.",
            "Choose eager or sdpa_flash to measure the nearest.",
        )
    if plan.all_logits:
        raise UnsupportedCall(
            "A run here gives the logits of the last position.",
            "Choose those logits under More.",
        )
    if found.length == 1 and plan.phase == "decode":
        raise PromptRefused("A run needs a token in the cache before it.", "Choose 2 or more.")


def _check_room(plan: "Plan", found: "MemoryEstimate", device: "torch.device") -> None:
    """Refuses what this machine cannot hold, or a processor not compute in a moment."""
    from attnscope.models.memory import available_bytes
    from attnscope.profiling.roofline import work

    room = available_bytes(device)
    if found.total_bytes > room:
        raise UnsupportedCall(
            f"It is predicted to take {nbytes(found.total_bytes)}, and {device} has {nbytes(room)} left.",
            "Choose a shorter length or a smaller batch.",
        )
    expected = work(plan, found.length).flops / _CPU_FLOPS_PER_SECOND
    if device.type == "cpu" and expected > _LONGEST_RUN_S:
        raise UnsupportedCall(
            f"One run would take about {seconds(expected)} on this processor.",
            "Choose a shorter length or a smaller batch.",
        )


def _column(parts: tuple[int | None, ...], moment: str, note: str) -> Answer:
    names = PARTS if len(parts) == len(PARTS) else TRAINING_PARTS
    return {**dict(zip(names, parts, strict=True)), "moment": moment, "note": note}
