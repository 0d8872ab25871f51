"""`attnscope runs list | show | export | import`: the history on the command line."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from attnscope.app.settings import Settings
from attnscope.kernels.errors import InvalidCall
from attnscope.profiling.units import count, latency, nbytes

if TYPE_CHECKING:
    from attnscope.profiling.record import RunRecord
    from attnscope.profiling.store import Filters, Store
    from attnscope.profiling.store_rows import RunRow

HEADER = ("run", "when", "model", "backend", "phase", "batch", "tokens", "dtype", "median", "peak")


def add_runs(parser: argparse.ArgumentParser) -> None:
    """Adds the command's own commands and their options."""
    commands = parser.add_subparsers(required=True, metavar="list | show | export | import")
    listed = commands.add_parser("list", help="the newest runs, a line each")
    _add_filters(listed)
    listed.add_argument("--limit", type=int, default=40, help="how many at most (default: 40)")
    listed.set_defaults(run=_list)
    shown = commands.add_parser("show", help="everything a run holds, as JSON")
    shown.add_argument("id", help="as list tells it")
    shown.set_defaults(run=_show)
    exported = commands.add_parser("export", help="write runs to a file")
    exported.add_argument("file", type=Path, help="its name ends with .jsonl, .parquet or .csv")
    _add_filters(exported)
    exported.set_defaults(run=_export)
    imported = commands.add_parser("import", help="take the runs of a file into the history")
    imported.add_argument("file", type=Path, help="its name ends with .jsonl or .parquet")
    imported.set_defaults(run=_import)


def open_history() -> "Store":
    """The history that the settings name; what must be known of it is told on standard error.

    Raises:
        HistoryUnavailable: It cannot be opened; says why.
    """
    from attnscope.profiling.store import Store

    store = Store.open(Settings.from_environment().history_place)
    for told in store.notices:
        sys.stderr.write(f"attnscope: {told}\n")
    return store


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text", default="", help="found in model, backend, device or reason")
    for name in ("backend", "phase", "dtype"):
        parser.add_argument(f"--{name}", action="append", help="only this; may be repeated")


def _filters(given: argparse.Namespace) -> "Filters":
    from attnscope.profiling.store import Filters

    backend, phase, dtype = (
        tuple(each or ()) for each in (given.backend, given.phase, given.dtype)
    )
    return Filters(text=given.text, backend=backend, phase=phase, dtype=dtype)


def _list(given: argparse.Namespace) -> None:
    filters = _filters(given)
    if given.limit < 1:
        raise InvalidCall(f"--limit must be at least 1, got {given.limit}.")
    with open_history() as store:
        rows = store.find(filters, limit=given.limit)
        total = store.count(filters)
    if not rows:
        _say("There is no such run." if not filters.is_empty else _EMPTY)
        return
    lines = [HEADER, *map(_texts, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [text.ljust(width) for text, width in zip(line, widths, strict=True)]
        _say("  ".join(cells).rstrip())
    if total > len(rows):
        _say(f"{count(total - len(rows))} more: raise --limit")


_EMPTY = "The history holds no run yet. Make one: attnscope profile"


def _texts(row: "RunRow") -> tuple[str, ...]:
    return (
        row.id,
        row.created[:16].replace("T", " "),
        _inert(row.model_title),
        _inert(row.backend),
        _inert(row.phase),
        count(row.batch),
        count(row.length),
        _inert(row.dtype),
        row.outcome.replace("_", " ") if row.median_s is None else latency(row.median_s),
        "" if row.peak_bytes is None else nbytes(row.peak_bytes),
    )


def _inert(text: str) -> str:
    """An imported title may hold what moves a terminal's cursor."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _show(given: argparse.Namespace) -> None:
    with open_history() as store:
        record = store.get(given.id)
    _say(json.dumps(json.loads(record.to_json()), indent=2))


def _export(given: argparse.Namespace) -> None:
    from attnscope.profiling import record_files

    suffix = _suffix(given.file, ".jsonl", ".parquet", ".csv")
    with open_history() as store:
        rows = store.find(_filters(given), descending=False)
        if suffix == ".csv":
            content = record_files.to_csv(rows)
        else:
            records = [store.get(row.id) for row in rows]
            write = {".jsonl": record_files.to_lines, ".parquet": record_files.to_parquet}[suffix]
            content = write(records)
    _replace(given.file, content)
    _say(f"runs written to {given.file}: {count(len(rows))}")


def _import(given: argparse.Namespace) -> None:
    from attnscope.profiling.record_files import from_lines, from_parquet

    readers: dict[str, Callable[[bytes, str], tuple[RunRecord, ...]]]
    readers = {".jsonl": from_lines, ".parquet": from_parquet}
    read = readers[_suffix(given.file, *readers)]
    records = read(given.file.read_bytes(), given.file.name)
    with open_history() as store:
        new = store.add_all(records, imported_from=given.file.name)
    _say(f"{count(new)} new, {count(len(records) - new)} known already")


def _suffix(file: Path, *known: str) -> str:
    if file.suffix not in known:
        raise InvalidCall(
            f"The name {str(file)!r} ends with none of {', '.join(known)}.", "Name it so."
        )
    return file.suffix


def _replace(file: Path, content: bytes) -> None:
    """Writes beside it and renames, so that no half-written file bears the name."""
    beside = file.with_name(f".{file.name}.part")
    try:
        beside.write_bytes(content)
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)


def _say(line: str) -> None:
    # A console in another encoding shows ? for what it lacks, and is not ended by it.
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(f"{line}\n".encode(encoding, "replace").decode(encoding))
