"""A mechanism measured beside dense attention on this worker's device, at a few lengths."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from attnscope.app.jobs.backends_offered import device_of
from attnscope.app.jobs.calculation_plan import shape_asked
from attnscope.app.jobs.context import Context
from attnscope.app.jobs.mechanism_answers import shape_on
from attnscope.app.jobs.mechanism_calls import Choice, choice
from attnscope.app.jobs.mechanism_folder import MechanismFolder
from attnscope.app.jobs.uptraining_work import uptrain_demo
from attnscope.app.mechanisms import Mechanism, mechanism
from attnscope.kernels.backends.backend import Backend
from attnscope.kernels.call import AttentionCall
from attnscope.kernels.registry import backend
from attnscope.profiling.attention_memory import OWN
from attnscope.profiling.call_bench import Trial, bench
from attnscope.profiling.latency import Effort
from attnscope.profiling.machine import machine_of
from attnscope.profiling.mechanism_trials import DEEPSEEK, MAKERS, Decoding
from attnscope.profiling.peak import cache_bytes
from attnscope.profiling.plan import Plan
from attnscope.profiling.record import now
from attnscope.profiling.units import count

if TYPE_CHECKING:
    import torch

    from attnscope.profiling.call_bench import CallFigures

Arguments = dict[str, Any]

LENGTHS = {"cpu": (256, 512, 1024, 2048), "cuda": (1024, 2048, 4096, 8192)}
_EFFORT = Effort(runs=20, seconds=0.5, warmup_seconds=0.05, budget_s=8.0)


def measure_mechanism(arguments: Arguments, context: Context) -> dict[str, Any]:
    """Time a mechanism and dense attention in turns on random tensors, or up-train the demo, and keep the figures.

    Args:
        arguments: mechanism; values of its controls; causal.
        context: Asked between any two runs whether it was cancelled.

    Returns:
        The record, as it is kept.
    """
    card, device = mechanism(arguments["mechanism"]), device_of(context.device)
    if card.trains:
        return uptrain_demo(arguments, context)
    chosen = choice(card, arguments["values"], causal=arguments["causal"])
    lengths = LENGTHS["cuda" if device.type == "cuda" else "cpu"]
    cells = [
        cell
        for at, length in enumerate(lengths)
        for cell in _measured(chosen, length, device, context, at / len(lengths), len(lengths))
    ]
    machine, shape = machine_of(device), shape_on(device)
    record = {
        "mechanism": card.key,
        "values": dict(chosen.values),
        "causal": chosen.causal,
        "shape": asdict(shape),
        "group_size": card.group_size,
        "created": now(),
        "device": machine.name,
        "versions": dict(machine.versions),
        "effort": asdict(_EFFORT),
        "cells": cells,
    }
    if card.timed is not None and card.timed.what == "latent":
        record["cache"] = _latent_cache(card, lengths[-1], device, context)
    MechanismFolder(context.settings.data).add(card.key, record)
    return record


def _measured(
    chosen: Choice,
    length: int,
    device: "torch.device",
    context: Context,
    done: float,
    lengths: int,
) -> list[dict[str, Any]]:
    context.progress(done, f"{count(length)} tokens", total=lengths, unit="lengths")
    trials = trials_at(chosen, length, device)

    def on_run(name: str, seconds: float) -> None:
        del name, seconds
        context.check()

    found = bench(trials, device, effort=_EFFORT, on_run=on_run)
    return [_cell(name, length, trials[name], found[name]) for name in trials]


def trials_at(chosen: Choice, length: int, device: "torch.device") -> Mapping[str, Trial]:
    """What is timed in turns, by name: what the card says, or its calls."""
    timed = chosen.card.timed
    if timed is not None:
        return MAKERS[timed.what](length, shape_on(device), device)
    asked = asked_at(chosen, length, device)
    return {name: Trial.of(*each, device) for name, each in asked.items()}


def asked_at(
    chosen: Choice, length: int, device: "torch.device"
) -> dict[str, tuple[Backend, AttentionCall]]:
    """Of a card with backends: dense attention, the mechanism, and its backend with nothing hidden."""
    shape = shape_on(device)
    own, dense = chosen.call(length, shape), chosen.dense(length, shape)
    runner, _ = chosen.runner(own, device)
    asked = {"dense": (backend("eager"), dense)}
    if chosen.card.key != "dense":
        asked["mechanism"] = (runner, own)
    if chosen.card.has_text:
        # A rule that nobody compiled before may fail to: then that is told beside what always runs.
        asked["compiled"] = (backend("flex"), own)
    whole = replace(own, pattern=dense.pattern)
    if whole != own and runner.refuses(whole, device) is None:
        asked["everything"] = (runner, whole)
    return asked


def _latent_cache(
    card: Mechanism, tokens: int, device: "torch.device", context: Context
) -> dict[str, int]:
    """Bytes that the longest cache measured held, and what the calculator says of one layer of the card's model."""
    assert card.cache is not None
    step = Decoding(tokens, shape_on(device), device, DEEPSEEK)
    shape = shape_asked({"model": card.cache.model}, context)
    plan = Plan(shape=shape, backend=OWN, batch=1, dtype=shape_on(device).dtype, phase="decode")
    return {
        "tokens": tokens,
        "held": step.cache_bytes,
        "expanded": sum(tensor.nbytes for tensor in step.expanded_cache()),
        "calculated": cache_bytes(plan, tokens) // len(shape.layers),
    }


def _cell(name: str, length: int, trial: Trial, figures: "CallFigures") -> dict[str, Any]:
    timing = figures.timing
    return {
        "name": name,
        "backend": trial.backend,
        "title": trial.title,
        "pattern": trial.over,
        "length": length,
        "median_s": None if timing is None else timing.median_s,
        "p10_s": None if timing is None else timing.p10_s,
        "p90_s": None if timing is None else timing.p90_s,
        "runs": 0 if timing is None else timing.count,
        "unsettled": "" if timing is None else timing.unsettled,
        "peak_bytes": figures.peak.value,
        "failure": figures.failure,
    }
