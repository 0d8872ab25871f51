"""Which configuration of which forward kernel is fastest here: writes `tuned.toml` anew.

    python -m benchmarks.gpu --only tune

Every line of `<date>_<device>_gpu_tune.jsonl` holds one kind of call and what every candidate took:
the portable kernel's, and on Hopper those of the kernels for it. `tuned.toml` beside it is the file
of `kernels/triton` with what was found in place of what ships, ready to be copied there; then
scripts/compile-check says whether it holds on the other devices and versions of Triton.

Compiling takes most of the time and needs no device: all cores share it beforehand.
"""

import datetime
import os
import statistics
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor

from attnscope.kernels.call import AttentionCall, AttentionOutput
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.triton.configurations import (
    Capability,
    block_width,
    capability_of,
    flash_config,
    hopper_config,
)
from attnscope.kernels.triton.flash_choice import rule_of
from attnscope.kernels.triton.flash_forward import launch_flash_forward
from attnscope.kernels.triton.flash_hopper import launch_flash_hopper
from attnscope.kernels.triton.flash_rule import FlashRule, flash_rule
from attnscope.kernels.triton.resources import compiling
from attnscope.kernels.triton.shipped.entry import tensors_of
from attnscope.kernels.triton.tuned import PATH, Tuned, read, replaced, shipped_entries, written
from benchmarks.gpu import forward, trial
from benchmarks.gpu.bench import Bench, Record, contest, planned
from benchmarks.gpu.contenders import OURS, Contender, judged
from benchmarks.gpu.problem import problem, truth
from tests.inputs import Inputs

SHARED_BYTES = 227 * 1024
"""Of a block on Hopper; a configuration that wants more does not start, and is not tried."""

NO_GPU = "no GPU"
"""The device's name in a toy run."""

KEYS = (32, 64, 128)
"""Of a tile."""

COMPILING_SHARE = 0.5
"""Of the section's time, at most, for compiling beforehand."""

CHANGED = ("tiles", "warps", "stages", "specialized", "persistent")
"""What of an entry is measured."""

Tensors = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]
"""q, k, v, sink logits and the visible keys."""

HOPPER: Capability = (9, 0)
"""What a toy run tries the configurations of."""


def calls(*, toy: bool) -> tuple[AttentionCall, ...]:
    """The plan: the forward goal's calls of 8k tokens, those with a window, and heads 256 wide.

    Args:
        toy: Tiny, and in float16, which Triton's interpreter can multiply.
    """
    length = 16 if toy else 8192
    grid = [call for call in forward.calls(toy=toy) if call.query_length == length]
    window = pattern("sliding_window", window=8 if toy else 1024)
    windows = [replace(call, pattern=window) for call in grid if call.pattern.key == "causal"]
    wide = {"head_dim": 256, "value_dim": 256, "query_heads": 8, "kv_heads": 8, "scale": 1 / 16}
    widest = [replace(call, **wide) for call in grid if call.head_dim == 128 and not toy]
    return (*grid, *windows, *widest)


def candidates(shipped: Tuned, *, toy: bool = False) -> tuple[Tuned, ...]:
    """What is tried of a kernel for a call: what ships first, then others that fit the shared memory.

    Args:
        shipped: The kernel's entry for the call.
        toy: Two small ones.
    """
    if shipped.kernel == "gluon":
        return trial.cuts(shipped)
    hopper = shipped.kernel == "hopper"
    # Queries, keys, warps, and whether copies and products have warps of their own.
    shapes = [
        (queries, keys, warps, False) for queries, warps in ((64, 4), (128, 8)) for keys in KEYS
    ]
    if hopper and "padded" not in shipped.rules:
        shapes += [(128, 64, 4, True), (128, 128, 4, True)]
    if toy:
        shapes = [(16, 16, 4, hopper)]
    tried = (
        replace(
            shipped,
            tiles=(queries, keys),
            warps=warps,
            stages=stages,
            specialized=specialized,
            persistent=persistent,
        )
        for (queries, keys, warps, specialized), stages, persistent in product(
            shapes, (1, 2) if toy else (2, 3), (True, False) if hopper and not toy else (hopper,)
        )
    )
    fitting = [entry for entry in tried if needed_bytes(entry) <= SHARED_BYTES]
    return tuple(dict.fromkeys(fitting if toy else [shipped, *fitting]))


def needed_bytes(entry: Tuned) -> int:
    """Shared memory of a block: a tile of queries, and of keys and values as many as there are stages.

    Where warps are apart, the output waits in a tile of its own.
    """
    queries, keys = entry.tiles
    size = 4 if entry.dtype == "float32" else 2
    return ((1 + entry.specialized) * queries + 2 * entry.stages * keys) * entry.width * size


def tune(bench: Bench) -> Iterator[Record]:
    """Every call of the plan, answered with every candidate of every kernel."""
    plan = calls(toy=bench.toy)
    if bench.device.type == "cuda":
        capability = capability_of(bench.device)
        pairs = [(call, entry) for call in plan for entry in _tried(call, capability, toy=False)]
        compile_ahead(pairs, capability, seconds=COMPILING_SHARE * bench.seconds_left)
    return planned(bench, plan, partial(_tuned, bench))


def compile_ahead(
    pairs: Iterable[tuple[AttentionCall, Tuned]], capability: Capability, *, seconds: float
) -> int:
    """Fills Triton's cache on all cores; what is not done in time is compiled when it is tried.

    Returns:
        How many were compiled.
    """
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_compile, *pair, capability) for pair in pairs]
        done, _ = wait(jobs, timeout=seconds)
        pool.shutdown(wait=True, cancel_futures=True)
    return sum(job.exception() is None for job in done)


def write_tuned(records: Iterable[Record], folder: Path, accelerator: str) -> Path | None:
    """Writes `tuned.toml` with what was found in place of what ships; None where nothing was.

    Args:
        records: Of the section.
        folder: Where the file is written.
        accelerator: The device, by name.
    """
    found = [each for record in records for each in record.get("best", ())]
    if not found:
        return None
    entries, origins = read(PATH.read_text())
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    name = f"{'toy' if accelerator == NO_GPU else 'measured'}_{date.replace('-', '')}"
    for kind, changes in found:
        asked = {**kind, "dtype": getattr(torch, kind["dtype"])}
        entries = replaced(entries, **asked, **changes, origin=name)
    origin = {
        "how": "Measured: of those tried, the fastest that is right (benchmarks/gpu/tune.py).",
        "device": accelerator,
        "date": date,
        **{package: version(package) for package in ("torch", "triton")},
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PATH.name
    path.write_text(written(entries, {**origins, name: origin}))
    return path


def named(entry: Tuned) -> str:
    """A candidate in a few words: queries, keys, warps, stages, and what the kernel for Hopper adds."""
    numbers = (*entry.tiles, entry.warps, entry.stages)
    marks = " warps apart" * entry.specialized + " persistent" * entry.persistent
    return f"{OURS} {entry.kernel} {numbers}{marks}"


def _tuned(bench: Bench, call: AttentionCall, deadline: float) -> Record:
    asked = problem(call, bench.device)
    capability = HOPPER if bench.toy else capability_of(bench.device)
    tried = {named(entry): entry for entry in _tried(call, capability, toy=bench.toy)}
    left_out = _left_out(asked, tried.values())
    if left_out:
        tried = {name: entry for name, entry in tried.items() if entry.kernel != "gluon"}
    tensors = (*asked.tensors, asked.sinks_H, asked.visible_keys_BK)
    contenders = [
        Contender(name=name, run=partial(_answer, tensors, call, entry))
        for name, entry in tried.items()
    ]
    judge = partial(judged, asked=asked, true=truth(asked))
    # They have the call's share of the time to compile and be judged in, and are timed in any case.
    within = replace(bench, deadline=deadline)
    record = contest(within, call, contenders, judge, deadline=deadline)
    medians = {
        name: statistics.median(found["samples_ms"])
        for name, found in record["backends"].items()
        if "samples_ms" in found
    }
    return record | {"refused": left_out} | _best(call, capability, tried, medians)


def _left_out(asked: Inputs, tried: Iterable[Tuned]) -> dict[str, str]:
    """Why the kernel in Gluon must not be tried here, by its name; nothing where it may."""
    if all(entry.kernel != "gluon" for entry in tried):
        return {}
    reason = trial.refusal(asked) or trial.outcome(every=True)
    return {} if reason is None else {trial.NAME: reason}


def _best(
    call: AttentionCall,
    capability: Capability,
    tried: dict[str, Tuned],
    medians: dict[str, float],
) -> Record:
    """The fastest configuration of each kernel as changes to the file; the fastest; its gain."""
    if not medians:
        return {}
    fastest = min(medians, key=medians.__getitem__)
    best = []
    for kernel in sorted({tried[name].kernel for name in medians}):
        of_kernel = (name for name in medians if tried[name].kernel == kernel)
        entry = tried[min(of_kernel, key=medians.__getitem__)]
        changes = {name: getattr(entry, name) for name in CHANGED}
        changes["preferred"] = "portable" != kernel == tried[fastest].kernel
        best.append((_kind(call, capability) | {"kernel": kernel}, changes))
    shipped = _shipped(call, capability)
    answers = (each for each in shipped.values() if each.preferred)
    ships = medians.get(named(next(answers, shipped["portable"])))
    return {
        "best": best,
        "table": fastest.removeprefix(f"{OURS} "),
        "gain": None if ships is None else ships / medians[fastest],
    }


def _kind(call: AttentionCall, capability: Capability) -> Record:
    """The kind of call, as the file names it."""
    return {
        "width": max(block_width(max(call.head_dim, call.value_dim)), 64),
        "dtype": call.dtype,
        "capability": capability,
        "rule": rule_of(_rule(call), has_padding=call.has_padding),
    }


def _shipped(call: AttentionCall, capability: Capability) -> dict[str, Tuned]:
    """The entry of each kernel that has one for the call; whoever comes first answers it if preferred."""
    kind = {**_kind(call, capability), "dtype": call.torch_dtype}
    found = {}
    for kernel in ("gluon", "hopper", "portable"):
        fitting = (each for each in shipped_entries() if each.fits(kernel, **kind))
        entry = next(fitting, None)
        if entry is not None:
            found[kernel] = entry
    return found


def _tried(call: AttentionCall, capability: Capability, *, toy: bool) -> Iterator[Tuned]:
    for entry in _shipped(call, capability).values():
        yield from candidates(entry, toy=toy)


def _compile(call: AttentionCall, entry: Tuned, capability: Capability) -> None:
    """Compiles one candidate as its launch will, in a process of its own."""
    with compiling(10 * capability[0] + capability[1]):
        _launch((*tensors_of(call), None, None), call, entry)


def _answer(tensors: Tensors, call: AttentionCall, entry: Tuned) -> AttentionOutput:
    out_BHQD, lse_BHQ = _launch(tensors, call, entry)
    return AttentionOutput(out_BHQD=out_BHQD, lse_BHQ=lse_BHQ)


def _launch(tensors: Tensors, call: AttentionCall, entry: Tuned) -> tuple[Tensor, Tensor]:
    if entry.kernel == "gluon":
        # Where Gluon has changed, that is this kernel's failure and nobody else's.
        from attnscope.kernels.triton.flash_gluon import launch_flash_gluon

        return launch_flash_gluon(*tensors[:3], _rule(call), flash_config(entry))
    if entry.kernel == "hopper":
        return launch_flash_hopper(*tensors, _rule(call), hopper_config(entry))
    return launch_flash_forward(*tensors, None, None, _rule(call), flash_config(entry))


def _rule(call: AttentionCall) -> FlashRule:
    rule = flash_rule(call)
    assert rule is not None, "the plan holds only what the kernels take"
    return rule
