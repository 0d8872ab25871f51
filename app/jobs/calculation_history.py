"""What was measured before of a model, each run beside what is predicted for it."""

from math import log
from typing import TYPE_CHECKING, Any

from attnscope.app.jobs.calculation_plan import plan_asked, shape_asked
from attnscope.app.jobs.context import Context

if TYPE_CHECKING:
    from attnscope.models.shape import ModelShape
    from attnscope.profiling.hardware import DeviceSpec
    from attnscope.profiling.store_rows import RunRow

MOST = 8
_WANTED = ("config_hash", "backend", "phase", "dtype", "outcome")

Answer = dict[str, Any]
Arguments = dict[str, Any]


def measured(arguments: Arguments, context: Context) -> Answer:
    """The runs of this very configuration, backend, phase and dtype that are nearest in length and batch.

    Arguments: of the question `calculation`.

    Returns:
        `runs`, at most `MOST`, the newest of each length, batch and device, and how many there are in `total`. Each has
        `id`, `created`, `is_reference`, `batch`, `length`, `device`, and `bytes` and `seconds`: what was predicted and
        what was measured, None where nobody can tell.

    Raises:
        HistoryUnavailable: The history does not answer.
    """
    shape = shape_asked(arguments, context)
    newest: dict[tuple[int, int, str, bool], RunRow] = {}
    for row, is_reference in _rows(shape, arguments, context):
        newest.setdefault((row.length, row.batch, row.device_name, is_reference), row)
    near = sorted(newest.items(), key=lambda each: _distance(each[1], arguments))
    told = [_beside(row, key[-1], shape, arguments) for key, row in near[:MOST]]
    return {
        "total": len(newest),
        "runs": sorted(told, key=lambda run: (run["length"], run["batch"], run["device"])),
    }


def _rows(
    shape: "ModelShape", arguments: Arguments, context: Context
) -> "list[tuple[RunRow, bool]]":
    """Rows newest first, and whether each is of a run that ships with the project."""
    from attnscope.models.shape import config_of
    from attnscope.profiling.asked import hash_of
    from attnscope.profiling.reference_runs import reference_runs
    from attnscope.profiling.store import Filters, Store
    from attnscope.profiling.store_rows import MEASURED, row_of

    wanted = Filters(
        config_hash=(hash_of(config_of(shape).to_dict()),),
        backend=(arguments["backend"],),
        phase=(arguments["phase"],),
        dtype=(arguments["dtype"],),
        outcome=(MEASURED,),
    )
    with Store.open(context.settings.history_place) as history:
        own = history.find(wanted)
    shipped = context.resources.get(
        "reference runs",
        lambda: sorted(map(row_of, reference_runs()), key=lambda row: row.created, reverse=True),
    )
    fitting = [
        row
        for row in shipped
        if all(getattr(row, name) in getattr(wanted, name) for name in _WANTED)
    ]
    return [(row, False) for row in own] + [(row, True) for row in fitting]


def _distance(row: "RunRow", arguments: Arguments) -> float:
    """How many times longer or shorter a run is, and larger or smaller its batch: in powers of e."""
    return abs(log(row.length / arguments["length"])) + abs(log(row.batch / arguments["batch"]))


def _beside(row: "RunRow", is_reference: bool, shape: "ModelShape", arguments: Arguments) -> Answer:
    from attnscope.profiling.peak import peak_bytes
    from attnscope.profiling.roofline import work

    plain = {"batch": row.batch, "page": None, "all_logits": False}
    plan = plan_asked(shape, {**arguments, **plain})
    # A run of decoding names the cache that is there; an estimate counts the new token, too.
    length = row.length + (row.phase == "decode")
    spec = _spec(row.device_name)
    peak = None if spec is None else spec.peak_flops.get(row.dtype)
    seconds = None
    if spec is not None and peak is not None:
        done = work(plan, length)
        seconds = done.seconds(flops_per_second=peak, bytes_per_second=spec.bandwidth)
    return {
        "id": row.id,
        "created": row.created,
        "is_reference": is_reference,
        "batch": row.batch,
        "length": row.length,
        "device": row.device_name,
        "bytes": [peak_bytes(plan, length), row.peak_bytes],
        "seconds": [seconds, row.median_s],
    }


def _spec(reported: str) -> "DeviceSpec | None":
    """What is listed of a device under the name that its driver gives."""
    from attnscope.profiling.hardware import devices

    return next((spec for spec in devices() if spec.reported == reported), None)
