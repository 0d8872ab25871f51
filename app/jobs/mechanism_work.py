"""A mechanism measured beside dense attention on this worker's device, at a few lengths."""

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from attnscope.app.jobs.backends_offered import device_of
from attnscope.app.jobs.context import Context
from attnscope.app.jobs.mechanism_answers import shape_on
from attnscope.app.jobs.mechanism_calls import Choice, choice
from attnscope.app.jobs.mechanism_folder import MechanismFolder
from attnscope.app.jobs.uptraining_work import uptrain_demo
from attnscope.app.mechanisms import mechanism
from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.registry import backend
from attnscope.profiling.call_bench import Asked, bench_calls
from attnscope.profiling.latency import Effort
from attnscope.profiling.machine import machine_of
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

    Raises:
        InvalidCall: The mechanism has nothing to time.
    """
    card, device = mechanism(arguments["mechanism"]), device_of(context.device)
    if card.figure == "uptraining":
        return uptrain_demo(arguments, context)
    if not card.backends:
        raise InvalidCall(f"{card.title} has no call of its own to time.")
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
    asked = asked_at(chosen, length, device)

    def on_run(name: str, seconds: float) -> None:
        del name, seconds
        context.check()

    found = bench_calls(asked, device, effort=_EFFORT, on_run=on_run)
    return [_cell(name, length, *asked[name], found[name]) for name in asked]


def asked_at(chosen: Choice, length: int, device: "torch.device") -> dict[str, Asked]:
    """The calls that are timed in turns: dense attention, the mechanism, and its backend with nothing hidden."""
    shape = shape_on(device)
    own, dense = chosen.call(length, shape), chosen.dense(length, shape)
    runner, _ = chosen.runner(own, device)
    asked: dict[str, Asked] = {"dense": (backend("eager"), dense)}
    if chosen.card.key != "dense":
        asked["mechanism"] = (runner, own)
    whole = replace(own, pattern=dense.pattern)
    if whole != own and runner.refuses(whole, device) is None:
        asked["everything"] = (runner, whole)
    return asked


def _cell(name: str, length: int, runner: Any, call: Any, figures: "CallFigures") -> dict[str, Any]:
    timing = figures.timing
    return {
        "name": name,
        "backend": runner.name,
        "title": runner.title,
        "pattern": call.pattern.title,
        "length": length,
        "median_s": None if timing is None else timing.median_s,
        "p10_s": None if timing is None else timing.p10_s,
        "p90_s": None if timing is None else timing.p90_s,
        "runs": 0 if timing is None else timing.count,
        "unsettled": "" if timing is None else timing.unsettled,
        "peak_bytes": figures.peak.value,
        "failure": figures.failure,
    }
