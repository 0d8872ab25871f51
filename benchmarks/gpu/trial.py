"""The kernel in Gluon, tried in a process of its own before it takes part in anything.

    python -m benchmarks.gpu.trial [--every]

Its warps wait for each other, and a wait without end would take a whole run with it: a process that
does not come back is ended, and the record says why the kernel was left out. Every kind of call it
takes is judged in several turns of a program; with `--every` in every cut that tuning tries.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial

import torch

from attnscope.kernels.call import AttentionCall, AttentionOutput
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.triton.configurations import capability_of, flash_config, kernel_entry
from attnscope.kernels.triton.device import is_hopper
from attnscope.kernels.triton.flash_choice import gluon_misfit, rule_of
from attnscope.kernels.triton.flash_rule import flash_rule, packs_documents
from attnscope.kernels.triton.resources import SHARED_LIMIT_BYTES
from attnscope.kernels.triton.tuned import Tuned
from benchmarks.gpu.contenders import OURS, Contender, judged
from benchmarks.gpu.problem import problem, truth
from tests.inputs import Inputs

NAME = f"{OURS}_gluon"

BARRIERS_BYTES = 1024
"""More than they take, with what Triton hands from group to group."""

SECONDS = 120
"""Until a trial is ended: compiling takes most of a minute."""


def gluon_of(asked: Inputs) -> tuple[list[Contender], dict[str, str]]:
    """The kernel as a contender for a problem, or by its name why it takes no part."""
    reason = refusal(asked) or outcome()
    if reason is not None:
        return [], {NAME: reason}
    entry = _shipped(asked.call)
    return [Contender(name=NAME, run=partial(answer, asked, entry))], {}


def refusal(asked: Inputs) -> str | None:
    """Why the kernel does not take a problem, in words."""
    call, device = asked.call, asked.q_BHQD.device
    if not is_hopper(device):
        where = torch.cuda.get_device_name(device) if device.type == "cuda" else device
        return f"it runs on Hopper alone, by its copy engine and matrix unit, and this is {where}"
    rule = flash_rule(call)
    if rule is None or packs_documents(call):
        return f"it knows one band of keys, and {call.pattern.title} is none"
    has = {"has_sinks": call.has_sinks, "has_padding": call.has_padding}
    return gluon_misfit(*asked.tensors, rule, **has)


def answer(asked: Inputs, entry: Tuned) -> AttentionOutput:
    """The kernel's answer to a problem, cut as an entry says."""
    # Where Gluon has changed, that is this kernel's failure and nobody else's.
    from attnscope.kernels.triton.flash_gluon import launch_flash_gluon

    rule = flash_rule(asked.call)
    assert rule is not None, "refused otherwise"
    out_BHQD, lse_BHQ = launch_flash_gluon(*asked.tensors, rule, flash_config(entry))
    return AttentionOutput(out_BHQD=out_BHQD, lse_BHQ=lse_BHQ)


@cache
def outcome(*, every: bool = False, seconds: float = SECONDS) -> str | None:
    """Why the kernel must not run here, in words; None when a trial came back with right answers.

    Args:
        every: Whether in every cut that tuning tries.
        seconds: Until the trial is ended.
    """
    command = [sys.executable, "-m", "benchmarks.gpu.trial", *(["--every"] if every else [])]
    return outcome_of(command, seconds)


def outcome_of(command: list[str], seconds: float) -> str | None:
    """Why a process failed, in words: what it said last, or that it did not come back."""
    try:
        tried = subprocess.run(
            command, timeout=seconds, capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired as expired:
        said = _last(expired.stdout)
        return f"left out: a trial did not come back in {seconds:g} s, its last word was {said!r}"
    if tried.returncode == 0:
        return None
    return f"left out: a trial failed: {_last(tried.stderr) or _last(tried.stdout)}"


def calls() -> Iterator[AttentionCall]:
    """Each width and kind of rule, in blocks enough for several turns, and tiles that are not full."""
    for head_dim in (128, 64):
        for shown in (pattern("full"), pattern("causal"), pattern("sliding_window", window=300)):
            yield AttentionCall(
                batch=4,
                query_heads=16,
                kv_heads=4,
                query_length=1000,
                key_length=1100,
                query_offset=100,
                head_dim=head_dim,
                value_dim=head_dim,
                dtype="bfloat16",
                scale=head_dim**-0.5,
                pattern=shown,
            )


def cuts(shipped: Tuned) -> tuple[Tuned, ...]:
    """What is tried of the kernel for a call: what ships first, then others that fit the shared memory."""
    others = (
        replace(shipped, tiles=(128, keys), stages=stages)
        for keys in (64, 128)
        for stages in (2, 3)
    )
    fitting = (each for each in others if _needed_bytes(each) <= SHARED_LIMIT_BYTES[90])
    return tuple(dict.fromkeys([shipped, *fitting]))


def _needed_bytes(entry: Tuned) -> int:
    """Shared memory of a block: queries and their output, the two rings, and the barriers."""
    queries, keys = entry.tiles
    return (2 * queries + 2 * entry.stages * keys) * entry.width * 2 + BARRIERS_BYTES


def _shipped(call: AttentionCall) -> Tuned:
    rule = flash_rule(call)
    assert rule is not None, "refused otherwise"
    kind = rule_of(rule, has_padding=False)
    device = capability_of(torch.device("cuda"))
    entry = kernel_entry("gluon", call.head_dim, call.torch_dtype, device, kind)
    assert entry is not None, f"tuned.toml has no entry for {call}"
    return entry


def _last(text: str | bytes | None) -> str:
    """The last line of what a process said."""
    told = text.decode() if isinstance(text, bytes) else text or ""
    return next(iter(reversed(told.strip().splitlines())), "")


def main() -> None:
    """Judges every call of the plan, and ends with the first that is not right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", action="store_true", help="every cut that tuning tries")
    every = parser.parse_args().every
    for call in calls():
        asked = problem(call, torch.device("cuda"))
        true = truth(asked)
        for entry in cuts(_shipped(call)) if every else (_shipped(call),):
            name = f"{call.pattern.title}, {call.head_dim}, {entry.tiles}, {entry.stages}"
            print(f"{name}: begins", flush=True)
            said = judged(Contender(name=NAME, run=partial(answer, asked, entry)), asked, true)
            if isinstance(said, str) or not said.right:
                sys.exit(f"{name}: {said if isinstance(said, str) else said.reason}")


if __name__ == "__main__":
    main()
