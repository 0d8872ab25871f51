"""`attnscope calculate`: what a model will take and cost, as a table, JSON or Markdown."""

import argparse
import dataclasses
import json
import re
import sys
from typing import TYPE_CHECKING, Any

from attnscope.kernels.errors import InvalidCall
from attnscope.profiling.units import count, nbytes, seconds

if TYPE_CHECKING:
    from attnscope.profiling.estimate import MemoryEstimate
    from attnscope.profiling.plan import Plan

_UNITS = {"": 1, "B": 1}
_UNITS |= {f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)}
_UNITS |= {f"{letter}B": 1000**power for power, letter in enumerate("KMGT", 1)}


def add_calculate(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments.

    Args:
        parser: Of the command.
    """
    parser.add_argument("model", help="demo, a hub id, a folder, a config.json, or its text")
    parser.add_argument("--revision", help="branch, tag or commit of a hub model")
    parser.add_argument("--length", type=int, default=4096, help="tokens a sequence (default 4096)")
    parser.add_argument("--batch", type=int, default=1, help="sequences (default 1)")
    parser.add_argument("--dtype", default="bfloat16", help="float32, bfloat16 or float16")
    parser.add_argument(
        "--backend",
        help="a backend, transformers_eager or transformers_sdpa "
        "(default: triton, or transformers_eager for a model that takes none)",
    )
    parser.add_argument(
        "--phase", default="prefill", help="prefill, decode or training (default prefill)"
    )
    parser.add_argument("--memory", help="what the device has, such as 80GiB: solves for it")
    parser.add_argument(
        "--device", help="a device of the table, such as H200: its memory and rates"
    )
    parser.add_argument("--reserve", default="0", help="of it, kept for the driver's context")
    parser.add_argument("--all-logits", action="store_true", help="of every position of a prompt")
    parser.add_argument("--page", type=int, help="tokens of a page of a paged cache")
    parser.add_argument(
        "--optimizer", default="adamw", help="sgd, adam, adamw, adamw_8bit or adafactor"
    )
    parser.add_argument("--checkpointing", action="store_true", help="recompute layers in training")
    parser.add_argument("--tflops", type=float, help="the device's peak in that dtype, for a time")
    parser.add_argument("--bandwidth", help="its memory's bandwidth a second, such as 3.35TB")
    parser.add_argument("--price", type=float, help="of the device an hour, for a cost")
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--json", action="store_true", help="print JSON")
    forms.add_argument("--markdown", action="store_true", help="print Markdown")
    parser.set_defaults(run=calculate)


def calculate(given: argparse.Namespace) -> None:
    """Estimates and prints.

    Args:
        given: The parsed arguments.

    Raises:
        AttnscopeError: What was asked for has no answer; says why.
    """
    if given.device is not None:
        _take_device(given)
    memory = None if given.memory is None else _room(given.memory, given.reserve)
    rates = _rates(given)
    # Here and not above: these import PyTorch and transformers, seconds of it.
    from attnscope.models.shape import shape_of
    from attnscope.profiling.attention_memory import OWN
    from attnscope.profiling.calculator import estimate_plan
    from attnscope.profiling.plan import Plan

    shape = shape_of(given.model, revision=given.revision)
    plan = Plan(
        shape=shape,
        backend=given.backend or ("triton" if shape.is_swappable else OWN),
        batch=given.batch,
        dtype=given.dtype,
        phase=given.phase,
        all_logits=given.all_logits,
        page=given.page,
        optimizer=given.optimizer,
        checkpointing=given.checkpointing,
    )
    found = estimate_plan(plan, given.length)
    facts = _facts(plan, found, memory, rates)
    if given.json:
        _say(json.dumps({**dataclasses.asdict(found), "total_bytes": found.total_bytes, **facts}))
    elif given.markdown:
        _say(_markdown(found, facts))
    else:
        _table(found, facts)


def memory_bytes(text: str) -> int:
    """A number of bytes as people write it: 80GiB, 141GB, 512MiB, 1000.

    Args:
        text: A number, and a unit in binary (KiB, MiB, GiB, TiB) or decimal (KB ... TB) steps.

    Raises:
        InvalidCall: It is not that.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2] not in _UNITS:
        raise InvalidCall(f"{text!r} is not a number of bytes.", "Write it as 80GiB or 141GB.")
    return int(float(match[1]) * _UNITS[match[2]])


def _room(memory: str, reserve: str) -> int:
    room = memory_bytes(memory) - memory_bytes(reserve)
    if room < 0:
        raise InvalidCall(f"The reserve of {reserve} is more than the memory, {memory}.")
    return room


def _take_device(given: argparse.Namespace) -> None:
    """Fills in what the table says of the device, where it was not given by itself."""
    from attnscope.profiling.hardware import device

    spec = device(given.device)
    given.memory = given.memory or f"{spec.memory_bytes}B"
    peak = spec.peak_flops.get(given.dtype)
    if peak is not None:
        given.tflops = given.tflops or peak / 1e12
        given.bandwidth = given.bandwidth or f"{round(spec.bandwidth)}B"


def _rates(given: argparse.Namespace) -> tuple[float, float, float | None] | None:
    if given.tflops is None and given.bandwidth is None:
        if given.price is not None:
            raise InvalidCall("A price needs a time.", "Give --tflops and --bandwidth as well.")
        return None
    if given.tflops is None or given.bandwidth is None:
        raise InvalidCall("A time needs both rates.", "Give --tflops and --bandwidth.")
    return given.tflops * 1e12, float(memory_bytes(given.bandwidth)), given.price


def _facts(
    plan: "Plan",
    found: "MemoryEstimate",
    memory: int | None,
    rates: tuple[float, float, float | None] | None,
) -> dict[str, Any]:
    from attnscope.profiling.roofline import cost_per_million_tokens, work
    from attnscope.profiling.solver import largest_batch_of, longest_of

    facts: dict[str, Any] = {"parameters": plan.shape.parameters}
    if memory is not None:
        facts["memory_bytes"] = memory
        facts["fits"] = found.total_bytes <= memory
        facts["longest"] = longest_of(plan, memory)
        facts["largest_batch"] = largest_batch_of(plan, memory, found.length)
    done = work(plan, found.length)
    facts["flops"] = done.flops
    facts["bytes_moved"] = done.nbytes
    if rates is not None:
        flops, bandwidth, price = rates
        facts["seconds"] = done.seconds(flops_per_second=flops, bytes_per_second=bandwidth)
        if price is not None:
            facts["price_per_million_tokens"] = cost_per_million_tokens(
                facts["seconds"], done.tokens, price
            )
    return facts


def _lines(found: "MemoryEstimate", facts: dict[str, Any]) -> list[str]:
    lines = [
        f"{nbytes(found.total_bytes)} at the worst moment, in {found.peak_phase} "
        f"({count(found.total_bytes)} bytes).",
    ]
    if found.cache_bytes:
        lines.append(
            f"Key/value cache: {nbytes(found.cache_bytes)} by the textbook, "
            f"{nbytes(found.cache_tensor_bytes)} in transformers' tensors."
        )
    if "memory_bytes" in facts:
        lines.append(
            f"{'Fits' if facts['fits'] else 'Does not fit'} {nbytes(facts['memory_bytes'])}: "
            f"longest context {count(facts['longest'])} tokens at batch {count(found.batch)}, "
            f"largest batch {count(facts['largest_batch'])} at {count(found.length)} tokens."
        )
    lines.append(f"{facts['flops']:.4g} FLOP, {nbytes(facts['bytes_moved'])} moved.")
    if "seconds" in facts:
        lines.append(f"At least {seconds(facts['seconds'])} by roofline.")
    if "price_per_million_tokens" in facts:
        lines.append(f"At least {facts['price_per_million_tokens']:.3g} a million tokens.")
    return [*lines, *found.notes]


def _title(found: "MemoryEstimate", facts: dict[str, Any]) -> str:
    return (
        f"{count(facts['parameters'])} parameters, {found.phase} of {count(found.length)} tokens, "
        f"batch {count(found.batch)}, {found.dtype}, {found.backend}"
    )


def _table(found: "MemoryEstimate", facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=_title(found, facts), title_justify="left", show_lines=False)
    table.add_column("what")
    table.add_column("memory", justify="right", no_wrap=True)
    table.add_column("formula", overflow="fold")
    table.add_column("with numbers", overflow="fold")
    for term in found.terms:
        table.add_row(term.name, nbytes(term.nbytes), term.formula, term.numbers)
    table.add_section()
    table.add_row("total", nbytes(found.total_bytes), "", "")
    console = Console(file=sys.stdout, highlight=False)
    console.print(table)
    for line in _lines(found, facts):
        console.print(line, markup=False)


def _markdown(found: "MemoryEstimate", facts: dict[str, Any]) -> str:
    rows = [
        f"| {term.name} | {nbytes(term.nbytes)} | {term.formula} | {term.numbers} |"
        for term in found.terms
    ]
    head = ["| what | memory | formula | with numbers |", "| --- | ---: | --- | --- |"]
    total = f"| **total** | **{nbytes(found.total_bytes)}** | | |"
    table = [_title(found, facts), "", *head, *rows, total, ""]
    return "\n".join([*table, *(f"* {line}" for line in _lines(found, facts))])


def _say(text: str) -> None:
    # A console in another encoding shows ? for what it lacks, and is not ended by it.
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(f"{text}\n".encode(encoding, "replace").decode(encoding))
