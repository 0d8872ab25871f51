"""One run on one device: ceilings first, then the sections, each within its share of the time.

    python -m benchmarks.gpu [--only forward] [--minutes 8.5] [--out folder] [--toy]

Writes `<yyyymmdd>_<device>_gpu_<section>.jsonl` after every section, so that a run that is cut short
leaves what it had, into `--out`, `$OUT`, or benchmarks/results; at the end, how far each goal is, as
a table and as `<yyyymmdd>_<device>_gpu_goals.jsonl`. `--toy` runs every section at sizes
of a few tokens in Triton's interpreter on the CPU: it shows that the benchmark works, not how fast.
"""

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from attnscope.kernels.backends.backend import Backend
from attnscope.kernels.registry import BACKENDS
from benchmarks.gpu import ceilings, goals
from benchmarks.gpu.backward import backward
from benchmarks.gpu.bench import Bench, Record, Section, clocks, geometric_mean
from benchmarks.gpu.decode import decode
from benchmarks.gpu.errors import errors
from benchmarks.gpu.forward import forward
from benchmarks.gpu.generate import generate
from benchmarks.gpu.linear import linear
from benchmarks.gpu.maps import maps
from benchmarks.gpu.memory import memory
from benchmarks.gpu.sparse import sparse
from benchmarks.gpu.stopwatch import stopwatch
from benchmarks.gpu.tune import NO_GPU, tune, write_tuned
from benchmarks.results import RESULTS, append


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A section, and its weight when the time left is shared.

    Attributes:
        section: What yields the records.
        weight: Of its share.
        keep: Writes what its records come to besides, given them, the folder and the device.
    """

    section: Section
    weight: float
    keep: Callable[[Iterable[Record], Path, str], Path | None] | None = None


PARTS = {
    "errors": Part(section=errors, weight=2),
    "generate": Part(section=generate, weight=1),
    "forward": Part(section=forward, weight=4),
    "backward": Part(section=backward, weight=3),
    "decode": Part(section=decode, weight=2),
    "sparse": Part(section=sparse, weight=3),
    "linear": Part(section=linear, weight=2),
    "maps": Part(section=maps, weight=2),
    "memory": Part(section=memory, weight=1),
    "tune": Part(section=tune, weight=4, keep=write_tuned),
}

UNASKED = tuple(name for name in PARTS if name != "tune")
"""What runs when nothing is asked for: tuning tells nothing of what ships."""

TOY_COMPILES = ("flex",)
"""Left out of a toy run: their compiler takes longer than all the rest."""


def main() -> None:
    """Runs what was asked for, and shows it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append", help="sections to run")
    parser.add_argument("--minutes", type=float, default=8.5, help="for everything together")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", RESULTS)))
    parser.add_argument("--toy", action="store_true", help="a few tokens, on the CPU")
    chosen = parser.parse_args()
    device = torch.device("cpu" if chosen.toy else "cuda")
    if not chosen.toy and not torch.cuda.is_available():
        sys.exit("There is no GPU here; --toy shows that the benchmark works, on the CPU.")
    names = chosen.only or list(UNASKED)
    for name, record in run(device, names, seconds=60 * chosen.minutes, out=chosen.out):
        print(shown(name, record), flush=True)


def run(
    device: torch.device,
    names: list[str],
    *,
    seconds: float,
    out: Path,
    backends: tuple[Backend, ...] = BACKENDS,
) -> Iterator[tuple[str, Record]]:
    """Runs sections one after the other and writes each one's records when it ends; then the goals.

    Args:
        device: A GPU, or the CPU for a toy run.
        names: Keys of `PARTS`, in order.
        seconds: For everything together.
        out: The folder of the records.
        backends: Who takes part.

    Yields:
        The section's name and a record, as they are made.
    """
    toy = device.type == "cpu"
    torch.manual_seed(0)
    watch = stopwatch(device)
    deadline = watch.seconds() + seconds
    sizes = ceilings.TOY if toy else ceilings.REAL
    roofs, measured = ceilings.ceilings(device, watch, sizes, seconds=0.02 * seconds)
    bench = Bench(
        device=device,
        watch=watch,
        ceilings=roofs,
        deadline=deadline,
        toy=toy,
        backends=tuple(each for each in backends if not (toy and each.name in TOY_COMPILES)),
    )
    shared = {"ceilings": measured, "toy": toy, "seed": 0}
    yield "ceilings", {**measured, "clocks": clocks()}
    where = {"device": _word(device), "accelerator": _accelerator(device), "folder": out}
    weights = {name: PARTS[name].weight for name in names}
    sections: dict[str, list[Record]] = {}
    while weights:
        name = next(iter(weights))
        share = (deadline - watch.seconds()) * weights[name] / sum(weights.values())
        del weights[name]
        records = sections[name] = []
        try:
            for record in PARTS[name].section(replace(bench, deadline=watch.seconds() + share)):
                records.append(record)
                yield name, record
            records.append(summary(name, records))
            yield name, records[-1]
        finally:
            # Also of a run that is cut short.
            lines = [{"section": name, **each, **shared} for each in records]
            append(f"gpu_{name}", lines, **where)
            if (keep := PARTS[name].keep) is not None:
                keep(records, out, _accelerator(device))
    table = goals.goals_table(sections)
    append("gpu_goals", [{**each, **shared} for each in table], **where)
    yield "goals", {"name": "how far each goal is", "table": table}


def summary(name: str, records: list[Record]) -> Record:
    """What a section comes to: how many answers are right, and the ratios' geometric means."""
    verdicts: dict[str, list[Record]] = {}
    for record in records:
        for backend, verdict in record.get("backends", {}).items():
            verdicts.setdefault(backend, []).append(verdict)
    ratios = [record["speed_ratio"] for record in records if "speed_ratio" in record]
    return {
        "name": f"{name}, in all",
        "right": {
            backend: f"{sum(each['right'] for each in found)} of {len(found)}"
            for backend, found in verdicts.items()
        },
        "error_ratio": {
            backend: geometric_mean(each["ratio"] for each in found if each["right"])
            for backend, found in verdicts.items()
        },
        "not_run": sum("not_run" in record for record in records),
        "speed_ratio_geomean": geometric_mean(ratios),
        "speed_ratios": len(ratios),
    }


def shown(section: str, record: Record) -> str:
    """A record in a few lines, for the log: a speed only of what is right."""
    lines = [f"{section}: {record.get('name', '')}"]
    if section == "goals":
        return f"{lines[0]}\n{goals.shown(record['table'])}"
    if "memory" in record:
        return "\n".join([*lines, *(_weighed(*each) for each in record["memory"].items())])
    if "backends" not in record:
        rest = {key: value for key, value in record.items() if key not in ("name", "call")}
        return f"{lines[0]} {rest}"
    lines += [f"  {name:<20} {_told(found)}" for name, found in record["backends"].items()]
    if "speed_ratio" in record:
        lines.append(
            f"  {record['ours']} against {record['best_peer']}: {record['speed_ratio']:.3f}"
        )
    if "overhead" in record:
        lines.append(f"  the map takes the forward pass {record['overhead']:.3f} times as long")
    if "best" in record:
        gain = f", {record['gain']:.3f} times as fast as what ships" if record["gain"] else ""
        lines.append(f"  best: {record['table']}{gain}")
    if "not_tried" in record:
        lines.append(f"  no time was left for: {', '.join(record['not_tried'])}")
    if "timed_by" in record:
        lines.append(f"  times: {record['timed_by']}")
    return "\n".join(lines)


def _told(found: Record) -> str:
    """What one contender did."""
    if not found["right"]:
        return f"WRONG: {found['reason']}"
    line = f"error {found['error']:.2e} = {found['ratio']:.2f} of PyTorch's"
    if "ms" in found:
        line += f"  {found['ms']['median']:.3f} ms  {found['tflops']:.1f} TFLOP/s"
        line += f"  {found['of_matmul']:.1%} of the matmul, {found['of_copy']:.1%} of the copy"
    if "efficiency" in found:
        line += f", efficiency {found['efficiency']:.2f}"
    return line


def _weighed(name: str, found: Record) -> str:
    """What the calculator said of one backend, beside the device."""
    if "not_run" in found:
        return f"  {name:<20} {found['not_run']}"
    said, took = (found[f"{each}_bytes"] / 2**20 for each in ("estimate", "measured"))
    return f"  {name:<20} {took:.1f} MiB, the calculator says {said:.1f}: {found['error_percent']:+.2f} %"


def _accelerator(device: torch.device) -> str:
    if device.type != "cuda":
        return NO_GPU
    return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"


def _word(device: torch.device) -> str:
    """The machine in one word, for the file's name."""
    if device.type != "cuda":
        return "toy"
    return re.sub(r"\W+", "", torch.cuda.get_device_name(device).lower().removeprefix("nvidia"))
