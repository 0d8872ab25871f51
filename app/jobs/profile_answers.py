"""The questions about profiles: what a plan would take, what happens now, what was found."""

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from attnscope.app.jobs.context import Context
from attnscope.app.jobs.profiles import ProfileFolder, folder_of, latest, shipped
from attnscope.app.jobs.tables import Ask
from attnscope.kernels.errors import JobMissing

if TYPE_CHECKING:
    from attnscope.profiling.record import RunRecord

Answer = dict[str, Any]
Arguments = dict[str, Any]


def plan(arguments: Arguments, context: Context) -> Answer:
    """See `profile_plan.profile_plan`."""
    from attnscope.app.jobs.profile_plan import profile_plan

    return profile_plan(arguments, context)


def live(arguments: Arguments, context: Context) -> Answer:
    """What happened after a position of the profile's stream, and the position to go on from."""
    events, following = _folder(arguments, context).events(int(arguments["after"]))
    return {"events": events, "next": following}


def found(arguments: Arguments, context: Context) -> Answer:
    """Every record of a profile in short, its plan, model, machine and origin, and what the history holds of it."""
    from attnscope.app.jobs.profile_records import described, missing, provenance
    from attnscope.profiling.json_data import to_data

    folder = _folder(arguments, context)
    asked, records = folder.plan(), _records(folder)
    kept, told = folder.history()
    shared = {
        "plan": asked,
        "kept": sorted(kept),
        "told": list(told),
        "ships": folder.ships,
    }
    if not records:
        return {**shared, "records": []}
    return {
        **shared,
        "records": [described(record) for record in records],
        "measured": records[-1].created,
        "cache": folder.cache(),
        "snapshots": [each.id for each in records if folder.snapshot(each.cell).exists()],
        "model": to_data(records[0].model),
        "machine": to_data(records[0].machine),
        "missing": missing(records),
        "provenance": provenance(records),
    }


def detail(arguments: Arguments, context: Context) -> Answer:
    """Parts, kernels and memory over time of one record."""
    from attnscope.app.jobs.profile_records import detailed

    return detailed(_record(arguments, context))


def last(arguments: Arguments, context: Context) -> Answer:
    """The id of the visitor's latest profile, and of the one that ships; None where there is none."""
    mine = latest(context.settings.profiles_folder, arguments["owner"])
    return {"profile": mine, "ships": shipped()}


def lines(arguments: Arguments, context: Context) -> Answer:
    """All records as they are kept, JSON Lines."""
    folder = _folder(arguments, context)
    folder.plan()
    whole = folder.records.read_bytes() if folder.records.exists() else b""
    return {"body": whole[: whole.rfind(b"\n") + 1]}


def trace(arguments: Arguments, context: Context) -> Answer:
    """The Chrome trace of one record, gzipped JSON that opens in Perfetto."""
    folder, record = _folder(arguments, context), _record(arguments, context)
    path = folder.trace(record.cell)
    if not path.exists():
        raise JobMissing(
            "No trace was kept of this cell.", "Measure again with “Keep traces” switched on."
        )
    return {"body": path.read_bytes()}


def snapshot(arguments: Arguments, context: Context) -> Answer:
    """PyTorch's own memory snapshot of one record, a pickle for pytorch.org/memory_viz."""
    folder, record = _folder(arguments, context), _record(arguments, context)
    path = folder.snapshot(record.cell)
    if not path.exists():
        raise JobMissing(
            "No memory snapshot was kept of this cell.",
            "PyTorch makes them on CUDA only; measure again there with “Keep traces” switched on.",
        )
    return {"body": path.read_bytes()}


def _folder(arguments: Arguments, context: Context) -> ProfileFolder:
    folder = folder_of(context.settings.profiles_folder, str(arguments["profile"]))
    with suppress(OSError):  # it is gone, or ships where nobody may write
        os.utime(folder.path)  # it stays for some time after its last use
    return folder


def _records(folder: ProfileFolder) -> "tuple[RunRecord, ...]":
    from attnscope.profiling.sweep import read_records

    return read_records(folder.records, mend=False)


def _record(arguments: Arguments, context: Context) -> "RunRecord":
    wanted = arguments["record"]
    for record in _records(_folder(arguments, context)):
        if record.id == wanted:
            return record
    raise JobMissing("This profile holds no such record.", "Reload the page.")


PROFILE_ASKS = {
    "profile_plan": Ask(plan, lane="patient", at="worker"),
    "profile_live": Ask(live),
    "profile": Ask(found, lane="patient"),
    "profile_detail": Ask(detail, lane="patient"),
    "profile_last": Ask(last),
    "profile_lines": Ask(lines),
    "profile_trace": Ask(trace, lane="patient"),
    "profile_snapshot": Ask(snapshot, lane="patient"),
}
"""Merged into `answers.ASKS`."""
