"""Compiles every kernel that ships for the GPUs it is meant for, on a machine that has none.

    python -m benchmarks.compile_check [--only 'flash*'] [--capability 90] [--write]

Prints what each takes, and fails when one spills, wants more shared memory than the device has,
lacks the instructions it was written for, or differs from what `benchmarks/compiled/` records for
this version of Triton; `--write` records it anew.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from fnmatch import fnmatchcase
from multiprocessing import get_context
from pathlib import Path

import triton

from attnscope.kernels.triton.resources import SHARED_LIMIT_BYTES, Resources, compiling
from attnscope.kernels.triton.shipped import BELOW_STANDARD, CAPABILITIES, Shipped, every_shipped
from benchmarks.results import failure

RECORDS = Path(__file__).with_name("compiled")
WGMMA_SINCE = 90
Table = dict[str, dict[str, dict[str, int]]]
"""What each kernel takes: by "name, sm_90", then by kernel, then by figure."""


def key(name: str, capability: int) -> str:
    """The name of a row of the table."""
    return f"{name}, sm_{capability}"


def complaints(shipped: Shipped, capability: int, found: Mapping[str, Resources]) -> list[str]:
    """What is wrong with a compiled entry, in words; empty when nothing is."""
    wrong = []
    known = capability in BELOW_STANDARD.get(shipped.name, ())
    for kernel, takes in found.items():
        where = f"{key(shipped.name, capability)}, {kernel}"
        if (takes.spills or takes.stack_bytes) and not known:
            wrong.append(f"{where}: {takes.spills} spills, {takes.stack_bytes} bytes of stack")
        if takes.shared_bytes > SHARED_LIMIT_BYTES[capability]:
            limit = SHARED_LIMIT_BYTES[capability]
            wrong.append(f"{where}: {takes.shared_bytes} bytes shared, the device has {limit}")
    wrong += [
        f"{key(shipped.name, capability)}, {kernel}: no {figure}"
        for kernel, takes in found.items()
        for figure in shipped.wants
        if not getattr(takes, figure)
    ]
    if shipped.wants_wgmma and capability >= WGMMA_SINCE and not known:
        slow = [kernel for kernel, takes in found.items() if takes.mma]
        if slow or not any(takes.wgmma for takes in found.values()):
            which = ", ".join(slow or found)
            wrong.append(f"{key(shipped.name, capability)}: {which}: not on wgmma")
    return wrong


def differences(found: Table, recorded: Table) -> list[str]:
    """Where the rows found differ from the record, in words; rows not found are not compared."""
    return [
        f"{row}: takes {figures}, the record says {recorded.get(row, 'nothing')}"
        for row, figures in found.items()
        if figures != recorded.get(row)
    ]


def record_path(version: str) -> Path:
    """Where the figures of one version of Triton are recorded."""
    return RECORDS / f"triton-{version}.json"


def read_record(version: str) -> Table | None:
    """The figures recorded for a version of Triton, None when there are none."""
    path = record_path(version)
    return json.loads(path.read_text()) if path.exists() else None


def write_record(version: str, table: Table) -> Path:
    """Records the figures: a row a line, sorted, so that a difference reads as one."""
    RECORDS.mkdir(exist_ok=True)
    rows = (f"  {json.dumps(row)}: {json.dumps(table[row])}" for row in sorted(table))
    path = record_path(version)
    path.write_text("{\n" + ",\n".join(rows) + "\n}\n")
    return path


def compiled(asked: tuple[str, int]) -> tuple[str, dict[str, dict[str, int]], list[str]]:
    """One row: its key, its figures by kernel, and what is wrong with it."""
    name, capability = asked
    shipped = next(entry for entry in every_shipped() if entry.name == name)
    with compiling(capability) as found:
        try:
            shipped.launch(capability)
        except Exception as error:  # noqa: BLE001 - what does not compile is a finding, not the end
            row = key(name, capability)
            return row, {}, [f"{row}: {failure(error)}"]
    figures = {kernel: figures_of(takes) for kernel, takes in found.items()}
    return key(name, capability), figures, complaints(shipped, capability, found)


def figures_of(takes: Resources) -> dict[str, int]:
    """The figures of a record: bulk copies only where there are any, as few kernels have them."""
    return {name: value for name, value in asdict(takes).items() if value or name != "bulk_copies"}


def _show(row: str, figures: Mapping[str, Mapping[str, int]]) -> None:
    for kernel, takes in figures.items():
        shown = "  ".join(f"{value:>6} {figure}" for figure, value in takes.items())
        print(f"{row:<52} {kernel:<24} {shown}", flush=True)


def _compile_all(asked: Iterable[tuple[str, int]]) -> tuple[Table, list[str]]:
    table, wrong = {}, []
    workers = os.cpu_count() or 1
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for row, figures, complained in pool.map(compiled, asked):
            _show(row, figures)
            table[row] = figures
            wrong += complained
    return table, wrong


def main() -> None:
    """Compiles, shows, judges, and compares with the record or writes it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", help="names to compile, as a shell pattern")
    parser.add_argument("--capability", type=int, action="append", help="90 for sm_90")
    parser.add_argument("--write", action="store_true", help="record what is found")
    chosen = parser.parse_args()
    asked = [
        (entry.name, capability)
        for entry in every_shipped()
        if any(fnmatchcase(entry.name, pattern) for pattern in chosen.only or ["*"])
        for capability in entry.capabilities
        if capability in (chosen.capability or CAPABILITIES)
    ]
    table, wrong = _compile_all(asked)
    recorded = read_record(triton.__version__)
    if chosen.write:
        print(write_record(triton.__version__, {**(recorded or {}), **table}))
    elif recorded is not None:
        wrong += differences(table, recorded)
    print(f"Triton {triton.__version__}: {len(table)} compiled, {len(wrong)} wrong")
    print("\n".join(wrong))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
